// Paints over a picture where it is to be drawn anew. By pointer; by keys a cursor moves, and the space bar paints.

import { html, useEffect, useRef, useState } from '../vendor/htm-preact.js';
import { Button, Choice, Dialog } from './parts.js';
import { t } from './words.js';

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function line(context, { points, width, erase }) {
  context.globalCompositeOperation = erase ? 'destination-out' : 'source-over';
  context.lineCap = context.lineJoin = 'round';
  context.strokeStyle = '#fff';
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(...points[0]);
  for (const point of points.length > 1 ? points.slice(1) : points) context.lineTo(...point);
  context.stroke();
}

/** White where it was painted, black elsewhere, of the picture's size. */
function asFile(painted) {
  const canvas = new OffscreenCanvas(painted.width, painted.height);
  const context = canvas.getContext('2d');
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(painted, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

/** `picture`: {url, width, height}; `before`: what was painted last, {blob}, or null. `onDone`: gets the mask as a PNG file. */
export function Painter({ picture, before, onDone, onClose }) {
  const canvas = useRef(null);
  const strokes = useRef([]);
  const base = useRef(null);
  const [size, setSize] = useState(12); // per cent of the shorter side
  const [tool, setTool] = useState('paint');
  const [cursor, setCursor] = useState(null); // as fractions
  const [count, setCount] = useState(0);
  const short = Math.min(picture.width, picture.height);
  const width = Math.max((size / 100) * short, 1);

  const redraw = () => {
    const context = canvas.current.getContext('2d');
    context.reset();
    if (base.current) context.drawImage(base.current, 0, 0);
    strokes.current.forEach((stroke) => line(context, stroke));
    setCount(strokes.current.length);
  };
  useEffect(() => {
    if (!before) return;
    createImageBitmap(before.blob).then((bitmap) => {
      const [own, context] = [new OffscreenCanvas(bitmap.width, bitmap.height)].flatMap((each) => [each, each.getContext('2d')]);
      context.drawImage(bitmap, 0, 0);
      const pixels = context.getImageData(0, 0, own.width, own.height);
      for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i]; // black becomes clear
      context.putImageData(pixels, 0, 0);
      base.current = own;
      redraw();
    });
  }, []);

  const at = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * picture.width, ((event.clientY - box.top) / box.height) * picture.height];
  };
  const begin = (point) => { strokes.current.push({ points: [point], width, erase: tool === 'erase' }); redraw(); };
  const go = (point) => {
    const stroke = strokes.current.at(-1);
    stroke.points.push(point);
    line(canvas.current.getContext('2d'), { ...stroke, points: stroke.points.slice(-2) });
  };
  const down = (event) => { event.preventDefault(); canvas.current.setPointerCapture(event.pointerId); begin(at(event)); };
  const move = (event) => {
    const [x, y] = at(event);
    setCursor([x / picture.width, y / picture.height]);
    if (event.buttons) go([x, y]);
  };
  const keys = (event) => {
    const [x, y] = cursor ?? [0.5, 0.5];
    const [dx, dy] = MOVES[event.key] ?? [];
    const step = event.shiftKey ? 0.1 : 0.02;
    if (dx !== undefined) setCursor([Math.min(Math.max(x + dx * step, 0), 1), Math.min(Math.max(y + dy * step, 0), 1)]);
    else if (event.key === ' ' || event.key === 'Enter') { setCursor([x, y]); begin([x * picture.width, y * picture.height]); }
    else return;
    event.preventDefault();
  };
  const clear = () => { base.current = null; strokes.current = []; redraw(); };

  const ring = useRef(null);
  useEffect(() => {
    if (!cursor) return;
    const style = ring.current.style;
    [style.left, style.top, style.width] = [`${cursor[0] * 100}%`, `${cursor[1] * 100}%`, `${(100 * width) / picture.width}%`];
  });
  return html`<${Dialog} title=${t('paint.title')} kind="wide" onClose=${onClose}>
    <p class="soft small" id="paint-keys">${t('paint.note')}</p>
    <div class="paint">
      <div class="paint-sheet">
        <img src=${picture.url} width=${picture.width} height=${picture.height} alt="" />
        <canvas ref=${canvas} width=${picture.width} height=${picture.height} tabindex="0" role="application" aria-label=${t('paint.sheet')} aria-describedby="paint-keys"
          onPointerDown=${down} onPointerMove=${move} onPointerLeave=${() => setCursor(null)} onKeyDown=${keys} />
        ${cursor && html`<span class="paint-ring" ref=${ring} />`}
      </div>
    </div>
    <div class="paint-tools">
      <${Choice} label=${t('paint.tool')} shown=${false} name="tool" value=${tool} options=${[['paint', t('paint.paint')], ['erase', t('paint.erase')]]} onChoose=${setTool} />
      <label class="field inline"><span class="label">${t('paint.size')}</span>
        <input type="range" min="2" max="40" value=${size} onInput=${(event) => setSize(Number(event.target.value))} /></label>
      <${Button} icon="reuse" label=${t('paint.undo')} disabled=${!count} onClick=${() => { strokes.current.pop(); redraw(); }} />
      <${Button} label=${t('paint.clear')} onClick=${clear} />
      <${Button} kind="primary" icon="check" label=${t('paint.done')} onClick=${async () => onDone(await asFile(canvas.current))} />
    </div>
  <//>`;
}
