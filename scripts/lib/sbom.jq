# CycloneDX 1.6 of what scripts/lib/sbom.sh found out. Input: its variables.
def purl: "pkg:cargo/\(.name)@\(.version)";
# Old crates have licences with a slash, from before SPDX.
def licences:
    if .license then [{expression: (.license | gsub(" *\/ *"; " OR "))}]
    elif .license_file then [{license: {name: "see \(.license_file)"}}] else [] end;
def crate: {
    type: "library", "bom-ref": purl, name, version, scope: (if .is_linked then "required" else "excluded" end),
    hashes: [{alg: "SHA-256", content: .sha256}], licenses: licences, purl: purl
} + (if .repository then {externalReferences: [{type: "vcs", url: .repository}]} else {} end);

($ours[0] | map(select(.sha256))) as $crates
| ($std[0] | map(select(.sha256))) as $std_crates
| ($ours[0] + $std[0] | map({key: .id, value: .}) | from_entries) as $by_id
| "pkg:generic/kubesolo-update@\($version)" as $root
| {
    type: "library", "bom-ref": "pkg:github/rust-lang/rust@\($rustc)#library/std", name: "std", version: $rustc, scope: "required",
    description: "Rust standard library, with core, alloc and compiler_builtins",
    licenses: [{expression: "MIT OR Apache-2.0"}], purl: "pkg:github/rust-lang/rust@\($rustc)#library/std"
} as $std_itself
| {
    type: "library", "bom-ref": "pkg:generic/musl@\($musl)", name: "musl", version: $musl, scope: "required",
    description: "C library, as zig brings it", licenses: [{license: {id: "MIT"}}], purl: "pkg:generic/musl@\($musl)"
} as $musl_itself
| ($crates + $std_crates | group_by(purl)
    | map({key: (.[0] | purl), value: (.[0] + {is_linked: any(.is_linked), needs: (map(.needs) | add | unique)})})) as $all
| {
    bomFormat: "CycloneDX", specVersion: "1.6", version: 1,
    metadata: {
        timestamp: $time,
        lifecycles: [{phase: "build"}],
        tools: {components: [
            {type: "application", name: "rustc", version: $rustc},
            {type: "application", name: "zig", version: $zig},
            {type: "application", name: "cargo-zigbuild", version: $zigbuild}]},
        component: {
            type: "application", "bom-ref": $root, name: "kubesolo-update", version: $version,
            description: "Update agent of KubeSolo OS", licenses: [{license: {id: "MIT"}}], purl: $root,
            components: [$binaries[] | {type: "file", "bom-ref": "file:\(.name)", name,
                hashes: [{alg: "SHA-256", content: .sha256}]}]
        }
    },
    components: ([$all[].value | crate] + [$std_itself, $musl_itself] | sort_by(."bom-ref")),
    dependencies: (
        [{ref: $root, dependsOn: ([$ours[0][] | select(.sha256 | not) | .needs[] | $by_id[.] | purl]
            + [$std_itself."bom-ref", $musl_itself."bom-ref"] | unique)},
         {ref: $std_itself."bom-ref", dependsOn: ([$std_crates[] | purl] | unique)},
         {ref: $musl_itself."bom-ref", dependsOn: []}]
        + [$all[] | {ref: .key, dependsOn: [.value.needs[] | $by_id[.] | select(.sha256) | purl] | unique}]
        | sort_by(.ref))
}
