// A picture to change, and where: all of it, the face or head in it, or what was painted.

import { html, useEffect } from '../vendor/htm-preact.js';
import { Painter } from './mask.js';
import { Button, Choice, Drop, Failure, Section, sizeOf, Slider } from './parts.js';
import { range } from './settings.js';
import { now, set, useStore } from './store.js';
import { t } from './words.js';

/** `borrowed`: it is the photograph, as long as a recipe needs a picture. */
export async function changePicture(file, mask = 'none', borrowed = false) {
  dropPicture();
  const url = URL.createObjectURL(file);
  const size = await sizeOf(url);
  set({ picture: { file, url, width: size?.[0], height: size?.[1], borrowed }, mask });
}

/** Puts back what the form had: pictures of which the addresses may be gone. */
export function changeInput(picture, mask, painted) {
  dropPicture();
  set({
    picture: picture && { ...picture, url: URL.createObjectURL(picture.file) }, mask,
    painted: painted && { ...painted, url: URL.createObjectURL(painted.blob) },
  });
}

function dropPicture() {
  const { picture, painted } = now();
  for (const each of [picture, painted]) if (each) URL.revokeObjectURL(each.url);
  set({ picture: null, painted: null, mask: 'none' });
}

function paintedMask(blob) {
  if (now().painted) URL.revokeObjectURL(now().painted.url);
  set({ painted: { blob, url: URL.createObjectURL(blob) }, mask: 'painted' });
}

/** Where it was not moved. */
export const strength = () => (now().mask === 'none' ? 0.3 : 1);

export function Input() {
  const { picture, painted, painting, mask, chosen, refused, recipe, photos } = useStore();
  const paint = (open) => set({ painting: open });
  const lacking = !picture && recipe?.needs.includes('picture') && photos.find((photo) => photo.state === 'seen');
  useEffect(() => {
    if (lacking) changePicture(lacking.file, mask, true);
    else if (picture?.borrowed && !recipe?.needs.includes('picture')) dropPicture();
  }, [lacking?.id, recipe?.name]);
  const wrong = ['image', 'picture', 'mask', 'strength', 'padding_mask_crop'].includes(refused?.param);
  const choose = (value) => (value === 'painted' && !painted ? paint(true) : set({ mask: value }));
  return html`<${Section} title=${t('input.title')} name="input" note=${picture ? null : t('input.note')}>
    ${!picture && html`<${Drop} compact label=${t('input.drop')} onFiles=${([file]) => changePicture(file)} />`}
    ${picture && html`
      <div class="input">
        <div class="input-picture"><img src=${picture.url} alt=${t('input.alt')} />
          ${mask === 'painted' && painted && html`<img class="input-mask" src=${painted.url} alt=${t('input.mask.alt')} />`}</div>
        <div class="input-acts">
          <${Button} icon="brush" label=${t(painted ? 'input.repaint' : 'input.paint')} onClick=${() => paint(true)} />
          <${Button} icon="close" label=${t('input.remove')} kind="bare" onClick=${dropPicture} />
        </div>
      </div>
      <${Choice} label=${t('input.where')} name="mask" value=${mask} onChoose=${choose}
        options=${['none', 'face', 'head', 'painted'].map((each) => [each, t(`input.where.${each}`)])} />
      <${Slider} name="strength" label=${t('slider.strength')} hint=${t('slider.strength.hint')} value=${chosen.strength} auto=${strength()}
        min="0.05" max=${range('strength').max} step="0.05" ends=${[t('slider.strength.low'), t('slider.strength.high')]}
        onMove=${(value) => set((before) => ({ chosen: { ...before.chosen, strength: value } }))} />`}
    ${painting && picture?.width && html`<${Painter} picture=${picture} before=${painted} onClose=${() => paint(false)}
      onDone=${(blob) => { paintedMask(blob); paint(false); }} />`}
    ${wrong && html`<${Failure} error=${refused} />`}
  <//>`;
}
