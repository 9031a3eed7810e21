# What a name is taken for that machines do not know: definitions for lib/documents.sh; src/oci/misspellings.rs has the same rule, and
# tests/registry/unknown_names.rs holds both to one table. Misspelt, a policy would be dropped in silence.
def prefix: "io.kubesolo.os.";
def fields: ["version", "channel", "architecture", "min_compatible_version", "release_notes", "release_date", "expires"];
def annotations: fields + ["initramfs_digest"];
def latest: fields + ["kernel", "initramfs", "artifacts", "url", "sha256", "size", "chunks"];
def synonyms: {arch: "architecture", expiry: "expires", expiration: "expires", expiresat: "expires", validuntil: "expires",
    minversion: "min_compatible_version", mincompatible: "min_compatible_version"};
def shown: tostring | gsub("[[:cntrl:]]"; "?");
def plain: ascii_downcase | gsub("[^a-z0-9]"; "");
# Length of what two lists have in common at their beginning.
def front($a; $b): ([$a, $b | length] | min) as $least | [range($least) | select($a[.] != $b[.])][0] // $least;
def slip($a; $b): front($a; $b) as $front | ($a[$front:] | reverse) as $a | ($b[$front:] | reverse) as $b
    | front($a; $b) as $back | $a[$back:] as $a | $b[$back:] as $b
    | ($a | length) <= 1 and ($b | length) <= 1 or ($a | length) == 2 and $a == ($b | reverse);
def meant($known): . as $name | synonyms[$name] // [$known[] | select(slip($name | explode; plain | explode))][0];
# What people write in place of the prefix, or nearly.
def prefixes: ["iokubesoloos", "iokubesoloupdate", "kubesoloio", "oskubesoloio"];
# The known name that a plain one ends in, behind what is nearly our prefix.
def behind_a_slip: . as $plain
    | [((annotations[] | {tail: plain, meant: .}), (synonyms | to_entries[] | {tail: .key, meant: .value}))
        | .tail as $tail | select($plain | endswith($tail))
        | select(any(prefixes[]; slip($plain[:-($tail | length)] | explode; explode))) | .meant][0];
# Of the names of annotations: a sentence for each that is none.
def unknown_annotation: . as $name | plain as $plain
    | if startswith(prefix) and (.[(prefix | length):] | IN(annotations[])) then empty
      elif $plain | startswith("iokubesoloos") then ($plain[12:] | meant(annotations)) // ""
      else (if $plain | startswith("iokubesolo") then $plain[10:] | meant(annotations) else null end)
        // (if $plain | contains("kubesoloos") then $plain | .[index("kubesoloos") + 10:] | meant(annotations) else null end)
        // ($plain | behind_a_slip) // empty end
    | "\($name | shown) is not an annotation that machines know"
        + if . == "" then "" else ": is \(prefix)\(.) meant?" end;
def unknown_field: . as $name
    | if IN(latest[]) then empty
      else plain | (if startswith("iokubesoloos") then .[12:] else . end | meant(latest)) // empty end
    | "\($name | shown) is not a field that machines know: is \(.) meant?";
def empty_value: "\(shown) is empty: give it a value, or leave it out";
def other_architecture: select(. != null and . != "amd64" and . != "arm64")
    | "its architecture is \(shown), which is none of a machine: write amd64 or arm64";
