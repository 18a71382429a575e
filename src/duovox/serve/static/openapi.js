// Reads an OpenAPI document: lists its operations, names its types, makes examples. Gives `docs` plain objects to show.

const VERBS = ["get", "post", "put", "patch", "delete"];

/** Follow a $ref of this document. */
export function resolve(document, schema) {
  if (!schema?.$ref) return schema ?? {};
  const found = schema.$ref.split("/").slice(1).reduce((part, key) => part[key], document);
  return resolve(document, found);
}

/** Every operation as {verb, path, id, operation}; those with a tag come first. */
export function operations(document) {
  const all = Object.entries(document.paths).flatMap(([path, item]) =>
    VERBS.filter((verb) => item[verb]).map((verb) => ({ verb, path, id: `${verb}${path.replaceAll(/\W+/g, "-")}`, operation: item[verb] })));
  return [...all.filter(({ operation }) => operation.tags), ...all.filter(({ operation }) => !operation.tags)];
}

/** A type in a few words: "number or null", "list of string", "wav | flac | ogg". */
export function typeName(document, schema) {
  const full = resolve(document, schema);
  const several = full.anyOf ?? full.oneOf;
  if (several) return several.map((one) => typeName(document, one)).join(" or ");
  if (full.enum) return full.enum.join(" | ");
  if (full.const !== undefined) return String(full.const);
  if (full.prefixItems) return `[${full.prefixItems.map((one) => typeName(document, one)).join(", ")}]`;
  if (full.type === "array") return `list of ${typeName(document, full.items)}`;
  if (full.additionalProperties?.type) return `object of ${full.additionalProperties.type}`;
  if (full.format === "binary" || full.contentMediaType) return "file";
  return schema?.$ref?.split("/").pop() ?? full.type ?? "anything";
}

const BOUNDS = { minimum: "from", exclusiveMinimum: "above", maximum: "to", exclusiveMaximum: "below", minLength: "length from", maxLength: "length to" };

const short = (value) => (Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential(2) : value);

/** The bounds and the default of a type, in words. */
export function bounds(document, schema) {
  const full = resolve(document, schema);
  const parts = [full, ...(full.anyOf ?? [])];
  const found = Object.keys(BOUNDS).flatMap((key) => parts.filter((part) => part[key] !== undefined).map((part) => `${BOUNDS[key]} ${short(part[key])}`));
  return [...found, ...(full.default !== undefined ? [`default ${JSON.stringify(full.default)}`] : [])].join(", ");
}

/** The fields of an object as {name, schema, required}. */
export function fields(document, schema) {
  const full = resolve(document, schema);
  const required = full.required ?? [];
  return Object.entries(full.properties ?? {}).map(([name, field]) => ({ name, schema: field, required: required.includes(name) }));
}

/** What a body or an answer holds: {type, schema} of its first content, or null. */
export function content(document, holder) {
  const [first] = Object.entries(resolve(document, holder).content ?? {});
  return first ? { type: first[0], schema: first[1].schema } : null;
}

function example(document, schema) {
  const full = resolve(document, schema);
  if (full.examples) return full.examples[0];
  if (full.example !== undefined) return full.example;
  return full.default ?? null;
}

function bodyExample(document, schema) {
  const given = example(document, schema);
  if (given !== null) return given;
  const pairs = fields(document, schema).map((field) => [field.name, example(document, field.schema)]);
  return Object.fromEntries(pairs.filter(([, value]) => value !== null && value !== false));
}

/** The first sound format that an operation can answer with, or undefined. */
function soundOf(document, operation) {
  return Object.keys(resolve(document, operation.responses["200"]).content ?? {}).find((type) => type.startsWith("audio/"));
}

/** curl commands that call an operation at `origin`: for JSON, and for a sound file where it gives one. */
export function curl(document, { verb, path, operation }, origin) {
  const body = content(document, operation.requestBody);
  const parts = ["curl", ...(verb === "get" || body ? [] : [`-X ${verb.toUpperCase()}`]), origin + path];
  if (body?.type === "multipart/form-data") parts.push(...fields(document, body.schema).map((field) => `-F ${field.name}=@sound.wav`));
  else if (body) parts.push(`-H 'Content-Type: ${body.type}'`, `-d '${JSON.stringify(bodyExample(document, body.schema))}'`);
  const sound = soundOf(document, operation);
  return [parts, ...(sound ? [[...parts, `-H 'Accept: ${sound}' -o sound.${sound.split("/")[1]}`]] : [])].map((words) => words.join(" "));
}
