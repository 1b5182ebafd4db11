// What the picture shows: recipes, the prompt, and the English that will be used.

import { html, useEffect } from '../vendor/htm-preact.js';
import { send } from './api.js';
import { draw } from './drawing.js';
import { Failure, Icon, Notice, Section, Told } from './parts.js';
import { served } from './settings.js';
import { now, set, useStore } from './store.js';
import { spoken, t } from './words.js';

const AFTER_MS = 450; // of quiet, before a prompt is translated

/** Of a recipe's texts, which are in both languages, that of the page. */
const Own = ({ texts, ...rest }) => html`<${Told} lang=${undefined} ...${rest}>${texts[spoken()]}<//>`;

function choose(recipe) {
  if (now().recipe?.name === recipe.name) return set({ recipe: null, chosen: {}, negative: null, mask: 'none' });
  fill(recipe, Object.fromEntries(recipe.choices.map((choice) => [choice.name, choice.default])));
}

/** Puts a recipe's prompt and parameters into the form. The server fills its template. */
async function fill(recipe, choices) {
  set({ recipe: { name: recipe.name, needs: recipe.needs, choices }, refused: null });
  try {
    const filled = await send(`/v1/recipes/${encodeURIComponent(recipe.name)}`, { choices });
    const { prompt, negative_prompt: negative = null, mask = 'none', ...parameters } = filled.options;
    if (now().recipe?.name === recipe.name) set({ prompt, negative, mask, chosen: parameters, english: null });
  } catch (error) {
    set({ refused: error });
  }
}

function Recipe({ recipe }) {
  const { recipe: chosen } = useStore();
  const variant = served()?.variant;
  const open = chosen?.name === recipe.name;
  return html`<li class=${`recipe ${open ? 'open' : ''}`}>
    <button type="button" class="recipe-card" aria-pressed=${open} onClick=${() => choose(recipe)}>
      <strong><${Own} texts=${recipe.title} /></strong><${Own} class="soft small" texts=${recipe.description} />
      ${!recipe.tried.includes(variant) && html`<span class="untried">${t('recipes.untried', { variant })}</span>`}
    </button>
  </li>`;
}

function Choices({ recipe, chosen }) {
  return html`<div class="recipe-choices" role="group" aria-label=${t('recipes.choices')}>
    ${recipe.choices.map((choice) => html`<label class="field" key=${choice.name}>
      <span class="label"><${Own} texts=${choice.title} /></span>
      <select value=${chosen.choices[choice.name]} onChange=${(event) => fill(recipe, { ...chosen.choices, [choice.name]: event.target.value })}>
        ${choice.options.map((option) => html`<option key=${option.name} value=${option.name} data-told>${option.title[spoken()]}</option>`)}
      </select></label>`)}
    <details class="more"><summary>${t('recipes.why')}</summary><p class="soft small"><${Told}>${recipe.why}<//></p></details>
  </div>`;
}

const triedFirst = (recipes, variant) => [...recipes].sort((one, other) => other.tried.includes(variant) - one.tried.includes(variant));

function Recipes() {
  const { recipes, recipe: chosen } = useStore();
  const variant = served()?.variant;
  const open = recipes.find((each) => each.name === chosen?.name);
  if (!recipes.length) return null;
  return html`<div class="recipes">
    <h3 class="label" id="recipes-title">${t('recipes.title')}</h3>
    <ul aria-labelledby="recipes-title" tabindex="0">${triedFirst(recipes, variant).map((recipe) => html`<${Recipe} key=${recipe.name} recipe=${recipe} />`)}</ul>
    ${open?.choices.length > 0 && html`<${Choices} recipe=${open} chosen=${chosen} />`}
  </div>`;
}

/** Text that CLIP cannot read as it is: anything beyond Latin script. */
const foreign = (text) => /[^\p{Script=Latin}\p{Script=Common}\p{Script=Inherited}]/u.test(text);

/** The English of the prompt, asked for when nothing was typed for a moment. */
function useEnglish() {
  const { prompt, capabilities } = useStore();
  const able = capabilities?.features.translate;
  useEffect(() => {
    if (!able || !foreign(prompt)) return set({ english: null });
    if (now().english?.of === prompt && now().english.edited) return; // it was brought back
    const ended = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const told = await send('/v1/prompts/translate', { prompt, prompt_language: 'auto' }, { signal: ended.signal });
        set({ english: { of: prompt, text: told.prompt, edited: false, warnings: told.warnings } });
      } catch (error) {
        if (!ended.signal.aborted) set({ english: { of: prompt, text: '', edited: false, warnings: [], error } });
      }
    }, AFTER_MS);
    return () => { clearTimeout(timer); ended.abort(); };
  }, [prompt, able]);
}

function English() {
  const { english, prompt, capabilities } = useStore();
  if (!capabilities?.features.translate || !foreign(prompt)) return null;
  if (english?.of !== prompt) return html`<p class="soft small english">${t('prompt.english.asking')}</p>`;
  return html`<div class="english">
    <label class="field"><span class="label">${t('prompt.english')}</span>
      <textarea rows="2" lang="en" value=${english.text} onInput=${(event) => set({ english: { ...english, text: event.target.value, edited: true } })} /></label>
    <p class="soft small">${t('prompt.english.note')}</p>
    ${english.warnings.map((warning) => html`<${Notice} key=${warning}><${Told}>${warning}<//><//>`)}
    <${Failure} error=${english.error} />
  </div>`;
}

export function Scene() {
  const { prompt, negative, refused } = useStore();
  useEnglish();
  const keys = (event) => event.key === 'Enter' && (event.ctrlKey || event.metaKey) && draw();
  const wrong = ['prompt', 'negative_prompt', 'prompt_language', 'recipe', 'choices'].includes(refused?.param);
  return html`<${Section} title=${t('scene.title')} name="scene">
    <${Recipes} />
    <label class="field"><span class="label">${t('prompt.label')}</span>
      <textarea id="prompt" rows="3" value=${prompt} placeholder=${t('prompt.example')} aria-invalid=${wrong} aria-describedby="prompt-wrong"
        onInput=${(event) => set({ prompt: event.target.value })} onKeyDown=${keys} /></label>
    <${English} />
    <details class="more"><summary>${t('negative.label')}</summary>
      <textarea rows="2" value=${negative ?? ''} aria-label=${t('negative.label')} placeholder=${t('negative.default')}
        onInput=${(event) => set({ negative: event.target.value || null })} /></details>
    ${wrong && html`<${Failure} id="prompt-wrong" error=${refused} />`}
  <//>`;
}
