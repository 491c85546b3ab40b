// NiiVue's module from node_modules in, the files that the page loads out: src/sampeft/viewer/static/vendor/.

import { copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const library = join(here, "node_modules", "@niivue", "niivue");
const target = join(here, "..", "src", "sampeft", "viewer", "static", "vendor");

const { name, version, license, repository } = JSON.parse(await readFile(join(library, "package.json"), "utf8"));
await mkdir(target, { recursive: true });
await copyFile(join(library, "dist", "index.js"), join(target, "niivue.js"));
// The module holds what NiiVue is built on, too: each with its licence; NiiVue's package itself ships no text of it.
const home = (repository?.url ?? "https://github.com/niivue/niivue").replace(/^git\+|\.git$/g, "");
const notices = [`niivue.js is ${name} ${version}, ${license}; its licence: ${home}/blob/main/LICENSE`];
for (const folder of await packages(join(here, "node_modules"))) {
  const file = (await readdir(folder)).find((entry) => /^licen[sc]e(\.|$)/i.test(entry));
  if (!file) continue;
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  notices.push(`It may hold parts of ${about.name} ${about.version}, ${about.license}:\n\n${(await readFile(join(folder, file), "utf8")).trim()}`);
}
await writeFile(join(target, "NOTICE.txt"), notices.join(`\n\n${"-".repeat(80)}\n\n`) + "\n");
console.log(`${name} ${version} -> ${target}`);

/** Folders of all packages, those of a scope (@...) too. */
async function packages(folder) {
  const found = [];
  for (const entry of (await readdir(folder, { withFileTypes: true })).filter((e) => e.isDirectory() && !e.name.startsWith(".")))
    if (entry.name.startsWith("@")) found.push(...(await packages(join(folder, entry.name))));
    else found.push(join(folder, entry.name));
  return found.sort();
}
