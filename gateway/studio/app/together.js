// Where each of several people is in the picture: boxes that are dragged, or moved by keys. See docs/together.md.

import { html, useEffect, useRef } from '../vendor/htm-preact.js';
import { pictureSize } from './settings.js';
import { place } from './photos.js';
import { useUrl } from './parts.js';
import { amend, useStore } from './store.js';
import { number, t } from './words.js';

const LEAST = 0.12; // of a box's sides, as share of the picture
const KEY_STEP = 0.02;
const FRAME_HEIGHT = 300;

/** Side by side, until somebody moves them. */
export const boxOf = (photo, index, count) => photo.box ?? [index / count, 0, (index + 1) / count, 1];

function moved([left, top, right, bottom], dx, dy) {
  const x = Math.min(Math.max(dx, -left), 1 - right), y = Math.min(Math.max(dy, -top), 1 - bottom);
  return [left + x, top + y, right + x, bottom + y];
}

const resized = ([left, top, right, bottom], dx, dy) => [
  left, top, Math.min(Math.max(right + dx, left + LEAST), 1), Math.min(Math.max(bottom + dy, top + LEAST), 1),
];

function PersonBox({ photo, index, box, frame }) {
  const url = useUrl(photo.file);
  const start = useRef(null);
  const change = (to) => amend('photos', photo.id, { box: to });
  const down = (event, act) => {
    event.preventDefault();
    event.stopPropagation();
    event.currentTarget.setPointerCapture(event.pointerId);
    start.current = { x: event.clientX, y: event.clientY, box, act };
  };
  const move = (event) => {
    if (!start.current) return;
    const { x, y, box: from, act } = start.current, size = frame.current.getBoundingClientRect();
    change(act(from, (event.clientX - x) / size.width, (event.clientY - y) / size.height));
  };
  const up = () => { start.current = null; };
  const keys = (event) => {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (dx === undefined) return;
    event.preventDefault();
    change((event.shiftKey ? resized : moved)(box, dx * KEY_STEP, dy * KEY_STEP));
  };
  const told = box.map((end) => number(100 * end, 0));
  return html`<div class="person" style=${place(box)}>
    <button type="button" class="person-move" aria-describedby="together-keys"
      aria-label=${t('together.box', { number: index + 1, left: told[0], top: told[1], right: told[2], bottom: told[3] })}
      onPointerDown=${(event) => down(event, moved)} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up} onKeyDown=${keys}>
      ${url && html`<img src=${url} alt="" draggable="false" />`}<span aria-hidden="true">${index + 1}</span>
    </button>
    <span class="person-size" aria-hidden="true" onPointerDown=${(event) => down(event, resized)} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up} />
  </div>`;
}

export function Boxes() {
  const { photos } = useStore();
  const frame = useRef(null);
  const [width, height] = pictureSize();
  useEffect(() => Object.assign(frame.current.style, { aspectRatio: `${width} / ${height}`, width: `min(100%, ${(FRAME_HEIGHT * width) / height}px)` }), [width, height]);
  return html`<div class="together">
    <p class="soft small" id="together-keys">${t('together.keys')}</p>
    <div class="frame" ref=${frame}>
      ${photos.map((photo, index) => html`<${PersonBox} key=${photo.id} photo=${photo} index=${index} box=${boxOf(photo, index, photos.length)} frame=${frame} />`)}
    </div>
    ${photos.map((photo, index) => html`<label class="field" key=${photo.id}><span class="label">${t('together.prompt', { number: index + 1 })}</span>
      <input type="text" value=${photo.prompt} placeholder=${t('together.same')} onInput=${(event) => amend('photos', photo.id, { prompt: event.target.value })} /></label>`)}
  </div>`;
}
