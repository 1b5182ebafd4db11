// Lists every endpoint of /openapi.json with the fields of its body and its parameters.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function type(field) {
  if (field.enum) return field.enum.map((each) => JSON.stringify(each)).join(", ");
  if (field.anyOf) return field.anyOf.map(type).filter((each) => each !== "null").join(" or ");
  if (field.type === "array") return `list of ${type(field.items ?? {})}`;
  const range = [["minimum", "≥"], ["maximum", "≤"]].filter(([key]) => key in field).map(([key, sign]) => `${sign} ${field[key]}`);
  return [field.format === "binary" ? "file" : field.type ?? "any", ...range].join(" ");
}

function table(caption, rows) {
  const made = element("table", "", element("caption", caption));
  made.append(element("tr", "", ...["name", "type", "meaning"].map((each) => element("th", each))));
  for (const [name, kind, meaning] of rows) {
    made.append(element("tr", "", element("td", "", element("code", name)), element("td", kind), element("td", meaning)));
  }
  return made;
}

function endpoint(path, method, told) {
  const title = element("summary", "", element("span", method.toUpperCase()), element("code", path));
  title.firstChild.className = "method";
  const made = element("details", "", title);
  if (told.description) made.append(element("p", told.description));
  const scopes = (told.security ?? []).flatMap((each) => Object.values(each)).flat();
  if (told.security) made.append(element("p", `Needs ${scopes.length ? `a key with the scope ${scopes.join(", ")}` : "any key"}.`));
  const asked = (told.parameters ?? []).map((each) => [each.name, type(each.schema ?? {}), each.in]);
  if (asked.length) made.append(table("Parameters", asked));
  for (const [kind, { schema }] of Object.entries(told.requestBody?.content ?? {})) {
    const fields = Object.entries(schema.properties ?? {});
    const needed = new Set(schema.required ?? []);
    made.append(table(kind, fields.map(([name, field]) => [name + (needed.has(name) ? " *" : ""), type(field), field.description ?? ""])));
  }
  return made;
}

const place = document.getElementById("endpoints");
try {
  const document_ = await (await fetch("/openapi.json")).json();
  const found = Object.entries(document_.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, told]) => endpoint(path, method, told)));
  place.replaceChildren(...found);
} catch (error) {
  place.textContent = `openapi.json could not be read: ${error}`;
}
