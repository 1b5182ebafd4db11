// The room where pictures are made: the form on one side, what was drawn on the other.

import { html } from '../vendor/htm-preact.js';
import { draw, why } from './drawing.js';
import { Input } from './input.js';
import { Failure } from './parts.js';
import { People } from './photos.js';
import { Scene } from './scene.js';
import { Settings } from './settings.js';
import { Shots } from './shots.js';
import { useStore } from './store.js';
import { t } from './words.js';

const PLACED = /^(face_|people|consent|prompt|negative|image|picture|mask|strength|padding|seed|num_inference|id_guid|text_guid|blend|height|width|size|n$|recipe|choices)/;

/** An error that no part of the form can show. */
const lost = (refused) => refused && !PLACED.test(refused.param ?? '');

export function Create() {
  const { refused, capabilities } = useStore();
  const missing = why();
  return html`<div class="create">
    <form class="form" onSubmit=${(event) => { event.preventDefault(); draw(); }}>
      <${People} /><${Scene} /><${Settings} /><${Input} />
      <div class="go">
        ${capabilities && lost(refused) && html`<${Failure} error=${refused} />`}
        <button class="button primary large" aria-disabled=${missing !== null} aria-describedby="go-why">${t('draw')}</button>
        <p class=${`soft small ${missing ? '' : 'hint'}`} id="go-why">${missing ?? t('draw.keys')}</p>
      </div>
    </form>
    <${Shots} />
  </div>`;
}
