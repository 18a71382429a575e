// The API page: fetches /openapi.json, shows every operation with its parameters, fields, answers and a curl command.

import { bounds, content, curl, fields, operations, resolve, typeName } from "./openapi.js";

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function table(head, rows) {
  const line = (kind, cells) => make("tr", {}, ...cells.map((cell) => make(kind, {}, cell)));
  return make("div", { className: "wide", tabIndex: 0 }, make("table", {}, make("thead", {}, line("th", head)), make("tbody", {}, ...rows.map((row) => line("td", row)))));
}

/** Text with `code` in it. */
function withCode(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
}

function titled(title, ...content) {
  return [make("h3", { textContent: title }), ...content];
}

function fieldRow(api, { name, schema, optional }) {
  const details = [schema.description ?? resolve(api, schema).description, bounds(api, schema), optional ? "" : "required"];
  return [name, typeName(api, schema), details.filter(Boolean).join(" · ")];
}

function parameters(api, operation) {
  const rows = (operation.parameters ?? []).map((parameter) => resolve(api, parameter));
  if (rows.length === 0) return [];
  const cells = rows.map((one) => [one.name, one.in, typeName(api, one.schema), one.description ?? ""]);
  return titled("Parameters", table(["Name", "In", "Type", ""], cells));
}

/** The fields of a body or an answer; of an object within it, its own fields follow. */
function fieldTables(api, title, holder, given = false) {
  const body = content(api, holder);
  if (body === null) return [];
  const tables = [];
  const seen = new Set();
  const add = (name, schema) => {
    const full = resolve(api, schema);
    if (seen.has(full)) return;
    seen.add(full);
    const own = fields(api, full);
    if (own.length) tables.push(...titled(name, table(["Field", "Type", ""], own.map((field) => fieldRow(api, { ...field, optional: given || !field.required })))));
    for (const field of own) inner(field.schema).forEach((one) => add(one.$ref.split("/").pop(), one));
  };
  const inner = (schema) => [schema, schema.items ?? {}, ...(schema.anyOf ?? []).flatMap((one) => [one, one.items ?? {}])].filter((one) => one.$ref);
  add(`${title} (${body.type})`, body.schema ?? {});
  if (body.schema?.items) inner(body.schema).forEach((one) => add(`${title} (${body.type})`, one));
  return tables;
}

function answers(api, operation) {
  const entries = Object.entries(operation.responses ?? {});
  const lines = entries.map(([status, one]) => make("li", {}, `${status} ${resolve(api, one).description ?? ""}`));
  const good = entries.find(([status]) => status.startsWith("2"));
  return [...(good ? fieldTables(api, "Answer", good[1], true) : []), ...titled("Statuses", make("ul", { className: "statuses" }, ...lines))];
}

function section(api, entry) {
  const { verb, path, id, operation } = entry;
  const heading = make("h2", {}, make("span", { className: "verb", textContent: verb.toUpperCase() }), path);
  return make("section", { className: "panel", id }, heading,
    make("p", { className: "text" }, ...withCode(operation.description ?? operation.summary ?? "")),
    ...titled("Try it", ...curl(api, entry, location.origin).map((command) => make("pre", { tabIndex: 0, textContent: command }))),
    ...parameters(api, operation), ...fieldTables(api, "Body", operation.requestBody), ...answers(api, operation));
}

async function start() {
  const about = document.getElementById("about");
  const response = await fetch("/openapi.json").catch(() => null);
  if (!response?.ok) {
    about.textContent = "The server did not give its /openapi.json; reload the page to try again.";
    return;
  }
  const api = await response.json();
  const all = operations(api);
  about.textContent = api.info.description ?? `${api.info.title} ${api.info.version}`;
  document.getElementById("index").append(...all.map(({ verb, path, id }) =>
    make("li", {}, make("a", { href: `#${id}`, textContent: `${verb.toUpperCase()} ${path}` }))));
  document.getElementById("operations").append(...all.map((entry) => section(api, entry)));
}

start();
