// What the page knows, in one object. Nothing of it is kept when the page is closed, but the choices in `kept` (browser) and the key (tab).

import { useEffect, useReducer } from '../vendor/htm-preact.js';

const listeners = new Set();

let state = {
  page: 'create',
  said: '', // for screen readers
  key: sessionStorage.getItem('key') ?? '',
  keyWanted: false,
  refused: null, // of the last request: {message, param, code}
  begun: false, // what the gateway offers is known, or that it says nothing
  capabilities: null,
  recipes: [],
  model: null,
  photos: [], // see photos.js
  consent: false,
  record: null, // a signed consent record, as its file says it
  together: false,
  recipe: null, // {name, choices}
  prompt: '',
  negative: null,
  english: null, // {of, text, translated, warnings}: what a prompt becomes; text may be edited
  chosen: {}, // parameters that were moved away from the server's defaults
  size: null, // [width, height]
  count: 1,
  seed: '',
  picture: null, // to change: {file, url, width, height, name}
  mask: 'none', // none, face, head, painted
  painted: null, // {blob, url}
  painting: false,
  shots: [], // see drawing.js, newest first
  opened: null, // {shot, index} of the picture that is shown large; null: the newest
  toVerify: null, // a file
};

export const now = () => state;

export function set(change) {
  state = { ...state, ...(typeof change === 'function' ? change(state) : change) };
  for (const listener of listeners) listener();
}

/** Changes the one of `list` whose id it is, if it is still there. */
export function amend(list, id, change) {
  set((before) => ({ [list]: before[list].map((each) => (each.id === id ? { ...each, ...change } : each)) }));
}

export function useStore() {
  const [, again] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    listeners.add(again);
    return () => listeners.delete(again);
  }, []);
  return state;
}

export const say = (text) => set({ said: text });

/** Choices that this browser keeps: language and light. */
export const kept = {
  get: (name) => localStorage.getItem(`studio.${name}`),
  set: (name, value) => localStorage.setItem(`studio.${name}`, value),
};

let ids = 0;
export const newId = () => `n${++ids}`;
