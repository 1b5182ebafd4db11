// Photographs of whoever is drawn: what the server finds in each, and the consent.

import { html, useEffect, useRef, useState } from '../vendor/htm-preact.js';
import { Refused, sendFile } from './api.js';
import { drawCrop } from './crop.js';
import { Button, Choice, Drop, Failure, Icon, Notice, Section, Told, useUrl } from './parts.js';
import { amend, newId, now, say, set, useStore } from './store.js';
import { served } from './settings.js';
import { Boxes } from './together.js';
import { number, t } from './words.js';

export const most = (capabilities, model) => capabilities?.models.find((each) => each.id === model)?.parameters.face_images?.max_items ?? 4;

/** Takes photographs in. Each: {id, file, state: looking | seen | failed, size, faces, chosen, warnings, error, box, prompt, record}. */
export function addPhotos(files) {
  const room = most(now().capabilities, now().model) - now().photos.length;
  for (const file of files.slice(0, room)) {
    const photo = { id: newId(), file, state: 'looking', faces: [], chosen: 0, warnings: [], box: null, prompt: '', record: null };
    set((before) => ({ photos: [...before.photos, photo] }));
    look(photo.id, file);
  }
  if (files.length > room) say(t('photos.most', { most: most(now().capabilities, now().model) }));
}

async function look(id, file) {
  try {
    const told = await sendFile('/v1/faces', 'image', file);
    const { width, height } = told.details.faces[0].photo;
    const usable = told.data.some((face) => face.usable);
    const error = usable ? null : new Refused(0, { message: t(told.data.length ? 'photos.small' : 'photos.none'), ours: true });
    amend('photos', id, { state: error ? 'failed' : 'seen', size: [width, height], faces: told.data, warnings: told.warnings, error });
    say(error ? error.message : t('photos.found', { count: told.data.length }));
  } catch (error) {
    amend('photos', id, { state: 'failed', error });
  }
}

/** What the server does with records of consent: off, record, require. */
export const asksConsent = () => served()?.rules.consent?.mode ?? 'off';

/** Of what is to be drawn from, whatever no record was added for: one of a person, where there are several, or the one of all. */
export function unrecorded() {
  const { photos, picture, together, record } = now();
  if (asksConsent() !== 'require' || record) return [];
  return [...photos.filter((photo) => !(together && photo.record)), ...(picture ? [picture] : [])];
}

const forget = (id) => set((before) => ({ photos: before.photos.filter((photo) => photo.id !== id), together: before.together && before.photos.length > 2 }));

function Crop({ url, photo }) {
  const canvas = useRef(null);
  const face = photo.faces[photo.chosen];
  useEffect(() => {
    if (!url || !face) return;
    const image = new Image();
    image.onload = () => canvas.current && drawCrop(canvas.current, image, photo.size, face.landmarks, getComputedStyle(canvas.current).color);
    image.src = url;
  }, [url, face]);
  return html`<canvas ref=${canvas} class="crop" width="224" height="224" role="img" aria-label=${t('photos.crop')} />`;
}

/** The faces of a photograph, to choose one. */
function Faces({ url, photo }) {
  return html`<fieldset class="faces"><legend class="soft small">${t('photos.which')}</legend>
    <div class="faces-of">
      <img src=${url} alt=${t('photos.alt')} />
      ${photo.faces.map((face, i) => html`<button type="button" key=${i} class="face-box" aria-pressed=${i === photo.chosen} disabled=${!face.usable}
        aria-label=${t('photos.face', { number: i + 1 })} style=${place(face.fractions)} onClick=${() => amend('photos', photo.id, { chosen: i })}>
        <span aria-hidden="true">${i + 1}</span></button>`)}
    </div>
  </fieldset>`;
}

export const place = ([left, top, right, bottom]) => ({
  left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
});

function Photo({ photo, index }) {
  const { together } = useStore();
  const url = useUrl(photo.file);
  const face = photo.faces[photo.chosen];
  const doubtful = face && photo.state === 'seen' ? Object.keys(face.doubts) : [];
  return html`<li class=${`photo ${photo.state}`}>
    <div class="photo-head">
      ${photo.state === 'seen' ? html`<${Crop} url=${url} photo=${photo} />`
        : html`<div class=${`crop whole ${photo.state === 'looking' ? 'busy' : ''}`}>${url && html`<img src=${url} alt="" onError=${(event) => event.target.remove()} />`}</div>`}
      <div class="photo-told">
        <p class="photo-name"><${Told}>${photo.file.name}<//></p>
        ${photo.state === 'looking' && html`<p class="soft small">${t('photos.looking')}</p>`}
        ${face && photo.state === 'seen' && html`<p class="soft small">${t('photos.eyes', { pixels: number(face.eye_distance, 0) })}</p>`}
        ${photo.state === 'seen' && !doubtful.length && html`<p class="fine small"><${Icon} name="check" />${t('photos.good')}</p>`}
      </div>
      <${Button} icon="close" kind="bare" quiet label=${t('photos.remove', { number: index + 1 })} onClick=${() => forget(photo.id)} />
    </div>
    ${photo.faces.length > 1 && url && html`<${Faces} url=${url} photo=${photo} />`}
    ${doubtful.map((name) => html`<${Notice} key=${name}>${t(`photos.doubt.${name}`)}<//>`)}
    ${together && asksConsent() !== 'off' && html`<${Record} of=${index + 1} record=${photo.record} onRecord=${(record) => amend('photos', photo.id, { record })} />`}
    ${photo.warnings.map((warning) => html`<${Notice} key=${warning}><${Told}>${warning}<//><//>`)}
    <${Failure} error=${photo.error} />
  </li>`;
}

export function People() {
  const { photos, picture, together, consent, record, refused, capabilities, model } = useStore();
  const mode = asksConsent();
  const full = photos.length >= most(capabilities, model);
  const about = refused && ['face_images', 'face_index', 'face_boxes', 'people', 'consent', 'image[]'].includes(refused.param);
  return html`<${Section} title=${t('people.title')} name="people" note=${photos.length ? null : t('people.note')}>
    ${photos.length > 0 && html`<ul class="photos">${photos.map((photo, index) => html`<${Photo} key=${photo.id} photo=${photo} index=${index} />`)}</ul>`}
    ${!full && html`<${Drop} multiple compact=${photos.length > 0} label=${t(photos.length ? 'photos.more' : 'photos.drop')}
      hint=${photos.length ? null : t('photos.hint')} onFiles=${addPhotos} />`}
    ${photos.length > 1 && html`<${Choice} label=${t('together.label')} name="together" value=${together ? 'several' : 'one'}
      options=${[['one', t('together.one')], ['several', t('together.several')]]} onChoose=${(value) => set({ together: value === 'several' })} />`}
    ${together && html`<${Boxes} />`}
    ${(photos.length > 0 || picture) && html`
      <label class="tick"><input type="checkbox" checked=${consent} onChange=${(event) => set({ consent: event.target.checked })} />
        <span>${t('consent.box')}</span></label>`}
    ${(photos.length > 0 || picture) && mode !== 'off' && html`
      <p class="soft small">${t(mode === 'require' ? 'consent.required' : 'consent.recorded')}</p>
      <${Record} record=${record} onRecord=${(told) => set({ record: told })} />`}
    ${about && html`<${Failure} error=${refused} />`}
  <//>`;
}

/** Takes the file of a signed record of consent, {name, text}. `of`: number of the person whose it is; none: it is for all. */
function Record({ of, record, onRecord }) {
  const input = useRef(null);
  const [wrong, setWrong] = useState(false);
  const read = async (event) => {
    const file = event.target.files[0];
    event.target.value = '';
    try {
      const text = await file.text();
      JSON.parse(text);
      onRecord({ name: file.name, text });
      setWrong(false);
    } catch {
      setWrong(true);
    }
  };
  return html`<div class="record">
    ${record ? html`<p class="small"><${Told}>${record.name}<//> <button type="button" class="link" onClick=${() => onRecord(null)}>${t('consent.remove')}</button></p>`
      : html`<${Button} icon="add" label=${of ? t('consent.add.one', { number: of }) : t('consent.add')} onClick=${() => input.current.click()} />`}
    <input ref=${input} type="file" accept="application/json,.json" hidden onChange=${read} />
    ${wrong && html`<${Notice} kind="bad">${t('consent.wrong')}<//>`}
  </div>`;
}
