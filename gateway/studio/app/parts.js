// Small controls that the rooms of the page share.

import { html, useEffect, useRef, useState } from '../vendor/htm-preact.js';
import { number, t } from './words.js';

const SHAPES = {
  close: 'M4 4l8 8M12 4l-8 8',
  add: 'M8 3v10M3 8h10',
  download: 'M8 2v8M4.500 7l3.500 3.500L11.500 7M3 13.500h10',
  brush: 'M10.500 2.500l3 3-6.500 6.500H4V9z',
  reuse: 'M3 8a5 5 0 1 1 1.500 3.500M3 13v-3h3',
  input: 'M2.500 3h11v10h-11zM5 10l2-2.500 2 2 1.500-1.500 1.500 2',
  check: 'M3 8.500l3.500 3.500L13 5',
  dice: 'M3 3h10v10H3zM6 6h.01M10 10h.01M8 8h.01',
  warn: 'M8 2.500l6 11H2zM8 6.500v3.500M8 12h.01',
};

export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d=${SHAPES[name]} /></svg>`;

/** Words that are not the page's: the server's, a file's name. English, and not in the tables. */
export const Told = ({ children, ...rest }) => html`<span data-told lang="en" ...${rest}>${children}</span>`;

export const Button = ({ icon, label, kind = '', quiet = false, ...rest }) => html`
  <button type="button" class=${`button ${kind}`} aria-label=${quiet ? label : undefined} title=${quiet ? label : undefined} ...${rest}>
    ${icon && html`<${Icon} name=${icon} />`}${!quiet && html`<span>${label}</span>`}
  </button>`;

/** `error`: a `Refused`, whose words are the server's, or ours where there was no answer. */
export const Failure = ({ error, id }) =>
  error && html`<p class="notice bad" role="alert" id=${id}><${Icon} name="warn" />
    <span>${error.ours ? error.message : html`<${Told}>${error.message}<//>`}</span></p>`;

export const Notice = ({ children, kind = 'warn' }) => html`
  <p class=${`notice ${kind}`}>${kind === 'warn' && html`<${Icon} name="warn" />`}<span>${children}</span></p>`;

export const Section = ({ title, name, note, side, children }) => html`
  <section class="section" aria-labelledby=${`title-${name}`}>
    <header><h2 id=${`title-${name}`}>${title}</h2>${side}</header>
    ${note && html`<p class="soft">${note}</p>`}
    ${children}
  </section>`;

/** One of several. `options`: [[value, text, told?], …]; told: the text is the server's. */
export function Choice({ label, name, value, options, onChoose, kind = 'segments', shown = true }) {
  return html`<fieldset class=${`choice ${kind}`}>
    <legend class=${shown ? 'label' : 'unseen'}>${label}</legend>
    <div class="options">${options.map(([option, text, told]) => html`
      <label key=${option}>
        <input type="radio" name=${name} value=${option} checked=${value === option} onChange=${() => onChoose(option)} />
        ${told ? html`<${Told}>${text}<//>` : html`<span>${text}</span>`}
      </label>`)}
    </div>
  </fieldset>`;
}

/** A number that is moved. `auto`: what holds while `value` is undefined. */
export function Slider({ name, label, hint, value, auto, min, max, step, ends, onMove }) {
  const moved = value !== undefined;
  const shown = moved ? value : auto;
  const low = useRef(null);
  useEffect(() => low.current.style.setProperty('--share', `${(100 * (shown - min)) / (max - min)}%`));
  return html`<div class="slider">
    <div class="line">
      <label for=${`slide-${name}`}>${label}</label>
      ${moved && html`<button type="button" class="link" aria-label=${t('slider.reset.of', { what: label })} onClick=${() => onMove(undefined)}>
        ${t('slider.reset')}</button>`}
      <span class="value" aria-hidden="true">${number(shown, 2)}</span>
    </div>
    <input ref=${low} id=${`slide-${name}`} type="range" min=${min} max=${max} step=${step} value=${shown}
      aria-describedby=${`hint-${name}`} onInput=${(event) => onMove(Number(event.target.value))} />
    ${ends && html`<div class="ends" aria-hidden="true"><span>${ends[0]}</span><span>${ends[1]}</span></div>`}
    <p class="soft small" id=${`hint-${name}`}>${hint}</p>
  </div>`;
}

/** Takes files by drop, by choice and by paste. `onFiles`: gets those that are pictures by their type. */
export function Drop({ label, hint, multiple = false, compact = false, onFiles }) {
  const [over, setOver] = useState(false);
  const input = useRef(null);
  const take = (list) => {
    const files = [...list].filter((file) => file.type.startsWith('image/') || /\.(heic|heif|avif)$/i.test(file.name));
    if (files.length) onFiles(multiple ? files : files.slice(0, 1));
  };
  return html`<div class=${`drop ${over ? 'over' : ''} ${compact ? 'compact' : ''}`}
    onDragOver=${(event) => { event.preventDefault(); setOver(true); }}
    onDragLeave=${() => setOver(false)}
    onDrop=${(event) => { event.preventDefault(); setOver(false); take(event.dataTransfer.files); }}
    onPaste=${(event) => take(event.clipboardData.files)}>
    <button type="button" class="drop-button" onClick=${() => input.current.click()}>
      <${Icon} name="add" /><span class="drop-label">${label}</span>${hint && html`<span class="soft small">${hint}</span>`}
    </button>
    <input ref=${input} type="file" accept="image/*,.heic,.heif,.avif" multiple=${multiple} hidden
      onChange=${(event) => { take(event.target.files); event.target.value = ''; }} />
  </div>`;
}

/** A dialog that is there as long as its parent shows it. */
export function Dialog({ title, kind = '', onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${dialog} class=${kind} aria-labelledby="dialog-title" onClose=${onClose}
    onClick=${(event) => event.target === dialog.current && onClose()}>
    <header class="dialog-head"><h2 id="dialog-title">${title}</h2>
      <${Button} icon="close" quiet label=${t('close')} kind="bare" onClick=${onClose} /></header>
    ${children}
  </dialog>`;
}

/** An address of a file in this page, let go when nobody shows it any more. */
export function useUrl(file) {
  const [url, setUrl] = useState(null);
  useEffect(() => {
    if (!file) return setUrl(null);
    const made = URL.createObjectURL(file);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [file]);
  return url;
}

export function sizeOf(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve([image.naturalWidth, image.naturalHeight]);
    image.onerror = () => resolve(null);
    image.src = url;
  });
}
