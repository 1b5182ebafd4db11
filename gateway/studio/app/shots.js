// What was drawn, and what is being drawn: one large, and all of this visit as a sheet of contacts.

import { html } from '../vendor/htm-preact.js';
import { bringBack, cancel, forget } from './drawing.js';
import { changePicture } from './input.js';
import { Button, Failure, Icon, Notice, Told } from './parts.js';
import { now, say, set, useStore } from './store.js';
import { number, t } from './words.js';

const WAITING = ['sending', 'queued', 'generating'];
const ENDINGS = { 'image/png': 'png', 'image/jpeg': 'jpg', 'image/webp': 'webp' };

export const waiting = (shot) => WAITING.includes(shot.state);
const nameOf = (picture) => `faceclip-${picture.seed}.${ENDINGS[picture.blob.type] ?? 'png'}`;

/** A picture as a file, byte for byte as the server made it: its credentials stay whole. */
const asFile = (picture) => new File([picture.blob], nameOf(picture), { type: picture.blob.type });

function again(shot, picture) {
  bringBack(shot, String(picture.seed));
  say(t('shot.again.said'));
  document.getElementById('prompt')?.focus();
}

async function into(picture, paint) {
  await changePicture(asFile(picture));
  set({ painting: paint });
  say(t('shot.input.said'));
  document.getElementById('title-input')?.scrollIntoView({ block: 'center' });
}

function verify(picture) {
  set({ toVerify: asFile(picture) });
  location.hash = 'verify';
}

function Empty() {
  return html`<div class="empty">
    <svg viewBox="0 0 120 120" aria-hidden="true" focusable="false"><path d="M14 34V22a8 8 0 0 1 8-8h12M86 14h12a8 8 0 0 1 8 8v12M106 86v12a8 8 0 0 1-8 8H86M34 106H22a8 8 0 0 1-8-8V86" />
      <path class="faint" d="M60 28c-14 0-23 10-23 24 0 17 10 30 23 30s23-13 23-30c0-14-9-24-23-24zM28 104c3-13 15-20 32-20s29 7 32 20" />
      <g class="dots"><circle cx="51" cy="51" r="2.6" /><circle cx="69" cy="51" r="2.6" /><circle cx="60" cy="60" r="2.6" /><circle cx="53" cy="69" r="2.6" /><circle cx="67" cy="69" r="2.6" /></g></svg>
    <h3>${t('empty.title')}</h3>
    <ol>${[1, 2, 3].map((step) => html`<li key=${step}>${t(`empty.${step}`)}</li>`)}</ol>
    <p class="soft small">${t('empty.note')}</p>
  </div>`;
}

function place(shot) {
  if (shot.away) return t('shot.away');
  if (shot.stopping) return t('shot.stopping');
  if (shot.state === 'generating') return t('shot.step', { step: shot.step, total: shot.total });
  return shot.position ? t('shot.position', { position: shot.position }) : t(`shot.${shot.state}`);
}

function Growing({ shot }) {
  return html`<div class="stage-wait">
    <div class="sheet" style=${{ aspectRatio: `${shot.size[0]} / ${shot.size[1]}` }}>
      ${shot.preview ? html`<img src=${shot.preview} alt=${t('shot.preview')} />` : html`<div class="developing" />`}
    </div>
    <div class="stage-bar">
      <progress aria-label=${t('shot.progress')} value=${shot.total ? shot.step : undefined} max=${shot.total || 1} />
      <span class="soft small">${place(shot)}</span>
      <${Button} icon="close" label=${t('shot.cancel')} disabled=${shot.stopping} onClick=${() => cancel(shot)} />
    </div>
    <${Failure} error=${shot.error} />
  </div>`;
}

const told = (shot, picture) => {
  const { parameters = {}, timings_s: times = {}, variant, placement } = shot.details;
  const text = parameters.text_guidance_scale ?? parameters.guidance_scale;
  return [
    ['seed', String(picture.seed)], ['steps', String(parameters.num_inference_steps)], ['text', text !== undefined && number(text, 2)],
    ['identity', (parameters.id_guidance_scale ?? null) !== null && number(parameters.id_guidance_scale, 2)], ['blend', parameters.blend_weight !== undefined && number(parameters.blend_weight, 2)],
    ['size', parameters.width && `${parameters.width} × ${parameters.height}`], ['model', [variant, placement].filter(Boolean).join(', ')],
    ['time', times.total !== undefined && t('seconds', { seconds: number(times.total, 2) })],
  ].filter(([, value]) => value);
};

function Drawn({ shot, picture }) {
  return html`<figure class="drawn">
    <div class="sheet"><img src=${picture.url} alt=${t('shot.alt', { prompt: shot.prompt })} /></div>
    <figcaption>
      <div class="acts">
        <a class="button primary" href=${picture.url} download=${nameOf(picture)}><${Icon} name="download" /><span>${t('shot.download')}</span></a>
        <${Button} icon="input" label=${t('shot.input')} onClick=${() => into(picture, false)} />
        <${Button} icon="brush" label=${t('shot.paint')} onClick=${() => into(picture, true)} />
        <${Button} icon="reuse" label=${t('shot.again')} onClick=${() => again(shot, picture)} />
        <${Button} icon="check" label=${t('shot.verify')} onClick=${() => verify(picture)} />
      </div>
      <p class="prompt"><${Told}>${picture.revised ?? shot.details.parameters?.prompt ?? shot.prompt}<//></p>
      <dl class="facts">${told(shot, picture).map(([name, value]) => html`<div key=${name}><dt>${t(`fact.${name}`)}</dt><dd>${value}</dd></div>`)}</dl>
      ${(shot.details.warnings ?? []).map((warning) => html`<${Notice} key=${warning}><${Told}>${warning}<//><//>`)}
      <p class="soft small">${t('shot.marked')}</p>
    </figcaption>
  </figure>`;
}

function Stage({ shot, index }) {
  if (!shot) return html`<${Empty} />`;
  if (waiting(shot)) return html`<${Growing} shot=${shot} />`;
  if (shot.state === 'completed') return html`<${Drawn} shot=${shot} picture=${shot.pictures[index]} />`;
  return html`<div class="ended">
    ${shot.state === 'failed' ? html`<${Failure} error=${shot.error} />` : html`<p>${t('shot.cancelled')}</p>`}
    <p class="prompt"><${Told}>${shot.prompt}<//></p>
    <div class="acts"><${Button} icon="reuse" label=${t('shot.again')} onClick=${() => bringBack(shot)} />
      <${Button} icon="close" kind="bare" label=${t('shot.forget')} onClick=${() => forget(shot.id)} /></div>
  </div>`;
}

function Contact({ shot, index, picture, current }) {
  const open = () => set({ opened: { shot: shot.id, index } });
  const state = picture ? html`<span class="unseen">${t('fact.seed')} </span>${picture.seed}` : waiting(shot) ? place(shot) : t(`contact.${shot.state}`);
  const url = picture?.url ?? shot.preview;
  return html`<li><button type="button" class=${`contact ${shot.state}`} aria-current=${current ? 'true' : undefined} onClick=${open}>
    <span class="contact-picture">${url ? html`<img src=${url} alt="" />` : html`<span class=${waiting(shot) ? 'developing' : 'blank'} />`}</span>
    <span class="contact-told">${state}</span>
  </button></li>`;
}

export function Shots() {
  const { shots, opened } = useStore();
  const shot = shots.find((each) => each.id === opened?.shot) ?? shots[0];
  const index = shot && opened?.shot === shot.id ? Math.min(opened.index, Math.max(shot.pictures.length - 1, 0)) : 0;
  const all = shots.flatMap((each) => (each.pictures.length ? each.pictures.map((picture, i) => ({ shot: each, picture, i })) : [{ shot: each, i: 0 }]));
  return html`<section class=${`shots ${all.length > 1 ? 'many' : ''}`} id="shots" aria-labelledby="shots-title">
    <h2 id="shots-title" class="unseen">${t('shots.title')}</h2>
    <${Stage} shot=${shot} index=${index} />
    ${all.length > 1 && html`<h3 class="label">${t('shots.all', { count: all.length })}</h3>
      <ul class="contacts">${all.map((each) => html`
        <${Contact} key=${`${each.shot.id}-${each.i}`} shot=${each.shot} index=${each.i} picture=${each.picture} current=${each.shot === shot && each.i === index} />`)}</ul>`}
  </section>`;
}
