// The page itself: its head, its three rooms, and what it asks of the gateway first.

import { html, render, useEffect, useRef } from '../vendor/htm-preact.js';
import { ask } from './api.js';
import { Create } from './create.js';
import { AskKey } from './key.js';
import { Failure } from './parts.js';
import { kept, now, set, useStore } from './store.js';
import { firstLanguage, LANGUAGES, speak, spoken, t } from './words.js';
import { Server } from './server.js';
import { Verify } from './verify.js';

const ROOMS = { create: Create, verify: Verify, server: Server };
const LIGHTS = ['auto', 'light', 'dark'];

async function begin() {
  try {
    const capabilities = await ask('/v1/capabilities');
    const model = [now().model, capabilities.default_model].find((id) => capabilities.models.some((each) => each.id === id));
    set({ capabilities, model, keyWanted: false, refused: null });
  } catch (error) {
    set({ refused: error, begun: true });
    return;
  }
  if (now().capabilities.features.recipes) {
    const { data } = await ask('/v1/recipes').catch(() => ({ data: [] }));
    set({ recipes: data });
  }
  set({ begun: true });
}

function light(chosen) {
  kept.set('light', chosen);
  document.documentElement.dataset.light = chosen;
  set({});
}

const room = () => (location.hash.slice(1) in ROOMS ? location.hash.slice(1) : 'create');

function Head({ page }) {
  const chosen = document.documentElement.dataset.light;
  const other = Object.keys(LANGUAGES).find((language) => language !== spoken());
  return html`<header class="head">
    <a class="brand" href="#create" aria-label=${t('title')}><img src="icon.svg" alt="" width="26" height="26" /><span data-told aria-hidden="true">FaceCLIP <b>Studio</b></span></a>
    <nav aria-label=${t('nav')}>${Object.keys(ROOMS).map((name) => html`
      <a key=${name} href=${`#${name}`} aria-current=${name === page ? 'page' : undefined}>${t(`nav.${name}`)}</a>`)}
    </nav>
    <div class="head-end">
      <button type="button" class="link" lang=${other} onClick=${() => { kept.set('language', other); speak(other); }}>${LANGUAGES[other]}</button>
      <button type="button" class="link" aria-label=${t(`light.${chosen}.long`)} onClick=${() => light(LIGHTS[(LIGHTS.indexOf(chosen) + 1) % 3])}>
        ${t(`light.${chosen}`)}</button>
    </div>
  </header>`;
}

function Studio() {
  const { page, said, keyWanted, refused, begun, capabilities } = useStore();
  const main = useRef(null);
  const Room = ROOMS[page];
  useEffect(() => {
    const moved = () => {
      set({ page: room() });
      main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    };
    addEventListener('hashchange', moved);
    begin();
    return () => removeEventListener('hashchange', moved);
  }, []);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>${t('skip')}</a>
    <${Head} page=${page} />
    <main id="main" ref=${main} tabindex="-1" aria-busy=${begun ? 'false' : 'true'}>
      <h1 class="unseen">${t(`nav.${page}`)}</h1>
      ${keyWanted ? html`<${AskKey} onKey=${begin} refused=${refused} />` : html`
        ${!capabilities && refused && html`<div class="lonely"><${Failure} error=${refused} />
          <button type="button" class="button" onClick=${begin}>${t('again')}</button></div>`}
        <${Room} />`}
    </main>
    <div class="unseen" role="status">${said}</div>`;
}

set({ page: room() });
document.documentElement.dataset.light = kept.get('light') ?? 'auto';
speak(firstLanguage());
render(html`<${Studio} />`, document.getElementById('app'));
