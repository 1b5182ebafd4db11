// Asks for the gateway's key. It stays in this tab, and goes nowhere but to this gateway.

import { html, useState } from '../vendor/htm-preact.js';
import { Failure, Icon } from './parts.js';
import { set } from './store.js';
import { t } from './words.js';

export function AskKey({ onKey, refused }) {
  const [key, setKey] = useState('');
  const use = (event) => {
    event.preventDefault();
    sessionStorage.setItem('key', key.trim());
    set({ key: key.trim(), refused: null });
    onKey();
  };
  return html`<form class="lonely" onSubmit=${use}>
    <h2>${t('key.title')}</h2>
    <p class="soft">${t('key.note')}</p>
    <label class="field"><span class="label">${t('key.label')}</span>
      <input type="password" autocomplete="off" value=${key} onInput=${(event) => setKey(event.target.value)} required autofocus /></label>
    <${Failure} error=${refused} />
    <button class="button primary"><${Icon} name="check" /><span>${t('key.use')}</span></button>
  </form>`;
}
