// From the form to a job, and from its events to pictures.

import { asBase64, ask, events, file, Refused, send } from './api.js';
import { changeInput, strength } from './input.js';
import { unrecorded } from './photos.js';
import { isDefault, pictureSize, parameters } from './settings.js';
import { amend, newId, now, say, set } from './store.js';
import { boxOf } from './together.js';
import { t } from './words.js';

const ENDS = ['completed', 'failed', 'cancelled'];

/** What is missing before anything can be drawn, in words; null: nothing. */
export function why() {
  const { capabilities, photos, consent, prompt, recipe, picture } = now();
  if (!capabilities) return t('why.server');
  if (photos.some((photo) => photo.state === 'looking')) return t('why.looking');
  if (photos.some((photo) => photo.state === 'failed')) return t('why.photo');
  if (!prompt.trim()) return t('why.prompt');
  if (recipe?.needs.includes('face') && !photos.length) return t('why.face');
  if (recipe?.needs.includes('picture') && !picture) return t('why.picture');
  if ((photos.length || picture) && !consent) return t('why.consent');
  if (unrecorded().length) return t('why.record');
  return null;
}

/** The body of the request that the form says. */
async function asked() {
  const { model, photos, record, together, prompt, negative, english, count, seed, size, picture, mask, painted } = now();
  const edited = english?.of === prompt && english.edited && english.text.trim();
  const words = edited ? { prompt: english.text, original_prompt: prompt } : { prompt }; // the checks read both, as where the server translates
  const body = { model, ...words, prompt_language: 'auto', n: count, output_format: 'png', partial_images: 3, ...parameters() };
  if (negative !== null) body.negative_prompt = negative;
  if (seed !== '') body.seed = Number(seed);
  if (record) body.consent = record.text;
  if (photos.length) {
    body.face_images = await Promise.all(photos.map((photo) => asBase64(photo.file)));
    if (photos.some((photo) => photo.chosen)) body.face_index = photos.map((photo) => photo.chosen);
    if (together) {
      body.people = photos.map((photo, i) => ({
        faces: [i], box: boxOf(photo, i, photos.length),
        ...(photo.prompt.trim() ? { prompt: photo.prompt } : {}), ...(photo.record ? { consent: JSON.parse(photo.record.text) } : {}),
      }));
    }
  }
  if (picture) {
    body.image = await asBase64(picture.file);
    body.strength ??= strength();
    if (mask === 'painted' && painted) body.mask = await asBase64(painted.blob);
    else if (mask !== 'none') body.mask = mask;
  } else {
    delete body.strength;
    if (size || !isDefault()) body.size = pictureSize().join('x');
  }
  return body;
}

/** What of the form "these settings" brings back. Photographs stay as they are. */
function form() {
  const { model, prompt, negative, english, recipe, chosen, size, count, seed, picture, mask, painted } = now();
  return { model, prompt, negative, english, recipe, chosen, size, count, seed, picture, mask, painted };
}

/** Puts a shot's form back; `seed`: another one than it had. */
export function bringBack({ form: { picture, mask, painted, ...rest } }, seed = rest.seed) {
  set({ ...rest, seed });
  changeInput(picture, mask, painted);
}

const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');

/** What a shot looks like: {id, state, job, away, position, step, total, preview, error, prompt, form, pictures: [{blob, url, seed, revised}], details}. */
export async function draw() {
  const missing = why();
  if (missing) return say(missing);
  const shot = { id: newId(), state: 'sending', position: null, step: 0, total: 0, preview: null, error: null, prompt: now().prompt, pictures: [], size: now().picture ? [now().picture.width, now().picture.height] : pictureSize(), form: form() };
  const shown = () => now().shots.find((each) => each.id === shot.id);
  set((before) => ({ shots: [shot, ...before.shots], refused: null, opened: null }));
  say(t('said.sent'));
  document.getElementById('shots')?.scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
  try {
    const job = await send('/v1/jobs', await asked(), { headers: { 'Idempotency-Key': newKey() } });
    amend('shots', shot.id, { job: job.id, state: job.status, position: job.queue_position });
    if (shown()?.stopping) cancel(shown());
    await follow(shot.id, job.id);
  } catch (error) {
    if (error instanceof Refused && !shown()?.job) {
      forget(shot.id);
      set({ refused: error });
      say(error.message);
    } else fail(shot.id, error);
  }
}

function fail(id, error) {
  amend('shots', id, { state: 'failed', error });
  say(error.message);
}

async function follow(id, job) {
  let done;
  const onAway = (away) => {
    amend('shots', id, { away });
    if (away) say(t('shot.away'));
  };
  for await (const { event, data } of events(`/v1/jobs/${job}/events`, (each) => ENDS.includes(each.event), onAway)) {
    if (event === 'queued') amend('shots', id, { state: 'queued', position: data.queue_position ?? null });
    if (event === 'progress') amend('shots', id, { state: 'generating', step: data.step, total: data.total });
    if (event === 'preview') amend('shots', id, { preview: `data:image/png;base64,${data.b64_json}` });
    if (event === 'failed') return fail(id, new Refused(500, data.error));
    if (event === 'cancelled') return amend('shots', id, { state: 'cancelled', preview: null });
    done = data;
  }
  const { result } = done;
  const pictures = await Promise.all(result.data.map(async (each) => {
    const { pathname, search } = new URL(each.url); // the host may have other names
    const blob = await file(pathname + search, onAway);
    return { blob, url: URL.createObjectURL(blob), seed: each.seed, revised: each.revised_prompt };
  }));
  amend('shots', id, { state: 'completed', pictures, details: result.details, preview: null, position: null });
  say(t('said.done', { count: pictures.length }));
}

/** Ends a shot that is not drawn yet. The gateway tells by an event when it has. */
export async function cancel(shot) {
  amend('shots', shot.id, { stopping: true });
  if (!shot.job) return; // the gateway may have it already: `draw` calls again as soon as it knows which job it is
  try {
    await ask(`/v1/jobs/${shot.job}`, { method: 'DELETE' });
  } catch (error) {
    if (error.status !== 409) amend('shots', shot.id, { error, stopping: false }); // 409: it has ended by itself
  }
}

export function forget(id) {
  for (const picture of now().shots.find((shot) => shot.id === id)?.pictures ?? []) URL.revokeObjectURL(picture.url);
  set((before) => ({ shots: before.shots.filter((shot) => shot.id !== id), opened: before.opened?.shot === id ? null : before.opened }));
}
