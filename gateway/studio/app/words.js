// Every text of the page, by key, in the language that was chosen.

import { en } from '../words/en.js';
import { zh } from '../words/zh.js';
import { kept, set } from './store.js';

const TABLES = { en, zh };
export const LANGUAGES = { en: 'English', zh: '中文' };

let language = null;

export const spoken = () => language;

/** `{name}` in a text is replaced by the value of that name. */
export function t(key, values = {}) {
  const text = TABLES[language][key];
  if (text === undefined) throw new Error(`no text '${key}'`);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function speak(chosen) {
  language = chosen in TABLES ? chosen : 'en';
  document.documentElement.lang = { en: 'en', zh: 'zh-Hans' }[language];
  document.title = t('title');
  set({});
}

export const firstLanguage = () => kept.get('language') ?? (navigator.language.startsWith('zh') ? 'zh' : 'en');

export const number = (value, digits = 1) => value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: digits });
