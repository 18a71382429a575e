// The words of a model by language. Takes the facts of the model, gives groups to the sections; a model without languages is one group.

const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });

/** "German" for "de"; the code itself where it is none that the browser knows. */
export function languageName(code) {
  try {
    return names.of(code);
  } catch {
    return code;
  }
}

/** The code of a label's language, null where it has none. */
export const languageOf = (label, languages) => (Object.hasOwn(languages, label) ? languages[label] : null);

/** [{language, labels}] in the order of the labels; language is null for labels without one. */
export function byLanguage({ labels, languages }) {
  const groups = new Map();
  for (const label of labels) {
    const code = languageOf(label, languages);
    if (!groups.has(code)) groups.set(code, []);
    groups.get(code).push(label);
  }
  return [...groups].map(([code, words]) => ({ language: code === null ? null : languageName(code), labels: words }));
}
