// How it is drawn: what may be set, within the ranges that the server tells.

import { html } from '../vendor/htm-preact.js';
import { Button, Choice, Failure, Section, Slider } from './parts.js';
import { now, set, useStore } from './store.js';
import { t } from './words.js';

const RATIOS = [[1, 1], [3, 4], [4, 3], [9, 16], [16, 9]];
const SHOWN = ['seed', 'num_inference_steps', 'id_guidance_scale', 'text_guidance_scale', 'blend_weight', 'height', 'width', 'size', 'n'];

export const served = () => now().capabilities?.models.find((each) => each.id === now().model);

/** Of a parameter: {min, max, default} as the server tells them. */
export function range(name) {
  const model = served();
  return { min: 0, max: 1, ...model?.parameters[name] };
}

/** Sizes to choose from, of about as many pixels as the default, within what the model and the key allow: [[width, height], …]. */
export function sizes() {
  const [width, height] = [range('width'), range('height')];
  if (width.default === undefined) return [];
  const step = width.multiple ?? 8, most = now().capabilities.key.limits.largest_side ?? Infinity;
  const area = width.default * height.default;
  const fit = (side, of) => Math.min(Math.max(Math.round(side / step) * step, of.min), of.max);
  const within = ([across, down]) => {
    const scale = Math.min(1, most / Math.max(across, down)), less = (side, of) => Math.max(Math.floor((side * scale) / step) * step, of.min);
    return scale === 1 ? [across, down] : [less(across, width), less(down, height)];
  };
  const made = RATIOS.map(([x, y]) => [fit(Math.sqrt((area * x) / y), width), fit(Math.sqrt((area * y) / x), height)]);
  const all = [[width.default, height.default], ...made].map(within);
  return all.filter((each, i) => all.findIndex((other) => `${other}` === `${each}`) === i);
}

/** Whether the size that is chosen is the one that is drawn where none is said. */
export const isDefault = () => `${pictureSize()}` === `${[range('width').default, range('height').default]}`;

export const pictureSize = () => now().size ?? sizes()[0] ?? [1, 1];

/** What the sliders say, as the request has it. Equal scales are standard guidance, so both go once one was moved. */
export function parameters() {
  const { chosen } = now();
  const scales = chosen.id_guidance_scale !== undefined || chosen.text_guidance_scale !== undefined;
  const sent = { ...chosen, ...(scales ? { id_guidance_scale: identity(chosen), text_guidance_scale: text(chosen) } : {}) };
  return Object.fromEntries(Object.entries(sent).filter(([, value]) => value !== undefined));
}

const identity = (chosen) => chosen.id_guidance_scale ?? Math.min(range('guidance_scale').default ?? 1, range('id_guidance_scale').max);
const text = (chosen) => chosen.text_guidance_scale ?? range('guidance_scale').default ?? 1;

/** Digits of a number that JavaScript has exactly; the server takes larger ones. */
function seedOf(text) {
  const digits = text.replace(/\D/g, '').slice(0, 16);
  return Number(digits) > Number.MAX_SAFE_INTEGER ? String(Number.MAX_SAFE_INTEGER) : digits;
}

export function Settings() {
  const { chosen, photos, picture, count, seed, capabilities, model, refused } = useStore();
  if (!served()) return null;
  const move = (name) => (value) => set((before) => ({ chosen: { ...before.chosen, [name]: value } }));
  const slider = (name, auto, step, ends) => {
    const { min, max } = range(name);
    return html`<${Slider} key=${name} name=${name} label=${t(`slider.${name}`)} hint=${t(`slider.${name}.hint`)} value=${chosen[name]} auto=${auto}
      min=${min} max=${max} step=${step} ends=${ends && [t(`slider.${name}.low`), t(`slider.${name}.high`)]} onMove=${move(name)} />`;
  };
  const all = sizes();
  return html`<${Section} title=${t('settings.title')} name="settings">
    ${capabilities.models.length > 1 && html`<${Choice} label=${t('settings.model')} name="model" value=${model}
      options=${capabilities.models.map((each) => [each.id, each.variant, true])} onChoose=${(value) => set({ model: value, size: null, chosen: {} })} />`}
    ${photos.length > 0 && slider('id_guidance_scale', identity({}), 0.1, true)}
    ${slider('text_guidance_scale', text({}), 0.1, true)}
    ${photos.length > 0 && slider('blend_weight', range('blend_weight').default ?? 1, 0.05, true)}
    ${slider('num_inference_steps', range('num_inference_steps').default, 1, true)}
    ${picture ? null : all.length > 1 ? html`<${Choice} label=${t('settings.size')} name="size" kind="chips" value=${pictureSize().join('x')}
        options=${all.map(([width, height]) => [`${width}x${height}`, `${width} × ${height}`])} onChoose=${(value) => set({ size: value.split('x').map(Number) })} />`
      : html`<p class="soft small">${t('settings.onesize', { size: pictureSize().join(' × '), variant: served().variant })}</p>`}
    <div class="pair">
      <${Choice} label=${t('settings.count')} name="count" value=${String(count)}
        options=${Array.from({ length: Math.min(range('num_images_per_prompt').max, 4) }, (_, i) => [String(i + 1), String(i + 1)])} onChoose=${(value) => set({ count: Number(value) })} />
      <div class="field"><label class="label" for="seed">${t('settings.seed')}</label>
        <div class="joined"><input id="seed" type="text" inputmode="numeric" value=${seed} placeholder=${t('settings.random')}
            onInput=${(event) => { event.target.value = seedOf(event.target.value); set({ seed: event.target.value }); }} />
          <${Button} icon="dice" quiet label=${t('settings.dice')} onClick=${() => set({ seed: '' })} /></div></div>
    </div>
    ${SHOWN.includes(refused?.param) && html`<${Failure} error=${refused} />`}
  <//>`;
}
