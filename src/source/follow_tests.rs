//! Tests of the walk from an index to a manifest: a revoked document ends it before anything below is fetched.

use super::*;
use crate::oci::initramfs::INITRAMFS_TYPE;
use crate::trust::keyring::SignaturePolicy;
use std::fs;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A ring without keys that revokes these.
fn ring(revoked: &[Digest]) -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("revoked")).unwrap();
    fs::write(dir.path().join("revoked/list"), Digest::texts(revoked).join("\n")).unwrap();
    for name in ["", "revoked", "revoked/list"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(if name.ends_with("list") { 0o644 } else { 0o755 });
        fs::set_permissions(dir.path().join(name), mode).unwrap();
    }
    Keyring::load(dir.path(), SignaturePolicy::Off, 1).unwrap()
}

fn index_of(entries: &[(&str, &str, Option<&str>)]) -> String {
    let entry = |(kind, text, architecture): &(&str, &str, Option<&str>)| {
        let (digest, size) = (Digest::of(text.as_bytes()), text.len());
        let platform = architecture.map(|name| format!(r#","platform":{{"os":"linux","architecture":"{name}"}}"#));
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}{}}}"#, platform.unwrap_or_default())
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","))
}

/// A manifest with two initramfs layers.
fn manifest_for(architecture: &str) -> String {
    let blob = |kind: &str, text: &str| {
        format!(r#"{{"mediaType":"{kind}","digest":"{}","size":9}}"#, Digest::of(text.as_bytes()))
    };
    let layers = ["one", "two"].map(|text| blob(INITRAMFS_TYPE, text));
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","layers":[{},{}],"annotations":{{"io.kubesolo.os.version":"2.0.0","io.kubesolo.os.architecture":"{architecture}","io.kubesolo.os.initramfs_digest":"{}"}}}}"#,
        blob(manifest::KERNEL_TYPE, "kernel"),
        layers.join(","),
        Digest::of(b"onetwo")
    )
}

/// Follows the first of these texts. Returns: the result, and how many of the others were fetched.
fn walk(texts: &[&str], revoked: &[Digest]) -> (Result<Artifact>, usize) {
    let (top, mut fetched) = (texts[0], 0);
    let document = manifest::parse(top.as_bytes(), Some(INDEX), "top").unwrap();
    let mut fetch = |descriptor: &Descriptor| {
        fetched += 1;
        let text = texts.iter().find(|text| Digest::of(text.as_bytes()) == descriptor.digest);
        Ok(text.expect("it is there").as_bytes().to_vec())
    };
    let followed =
        follow(Top { document, digest: Digest::of(top.as_bytes()) }, "amd64", "t", &ring(revoked), &mut fetch);
    (followed.map(|(artifact, _)| artifact), fetched)
}

#[test]
fn what_is_revoked_on_the_way_ends_it_there() {
    let manifest = manifest_for("amd64");
    let inner = index_of(&[(MANIFEST, &manifest, Some("amd64"))]);
    let middle = index_of(&[(INDEX, &inner, Some("amd64"))]);
    let top = index_of(&[(INDEX, &middle, Some("amd64"))]);
    let texts = [&*top, &middle, &inner, &manifest];
    let (artifact, fetched) = walk(&texts, &[]);
    let (digests, artifact) = (artifact.as_ref().unwrap().digests(), artifact.unwrap());
    assert_eq!(fetched, 3);
    for text in texts.into_iter().chain(["kernel", "one", "two", "onetwo"]) {
        assert!(digests.contains(&Digest::of(text.as_bytes())), "{text}");
    }
    assert_eq!(artifact.passed.len(), 4, "two indexes, two layers");
    for (n, text) in texts.iter().enumerate() {
        let (refused, fetched) = walk(&texts, &[Digest::of(text.as_bytes())]);
        let e = refused.unwrap_err();
        assert!(e.kind() == Kind::Signature && e.to_string().contains("is revoked"), "{n}: {e}");
        assert_eq!(fetched, n.saturating_sub(1), "{n}: more was fetched than what leads to it");
    }
}

/// An entry without a platform counts once it proves to be for this machine.
#[test]
fn what_is_revoked_for_others_is_passed_by() {
    let (ours, theirs) = (manifest_for("amd64"), manifest_for("arm64"));
    let (inner, other) = (index_of(&[(MANIFEST, &ours, None)]), index_of(&[(MANIFEST, &theirs, None)]));
    let top = index_of(&[(INDEX, &other, None), (MANIFEST, &theirs, None), (INDEX, &inner, None)]);
    let texts = [&*top, &inner, &other, &ours, &theirs];
    let found = walk(&texts, &[Digest::of(other.as_bytes()), Digest::of(theirs.as_bytes())]).0.unwrap();
    assert_eq!(found.digest, Digest::of(ours.as_bytes()));
    assert!(found.passed.contains(&Digest::of(inner.as_bytes())));
    assert!(!found.digests().contains(&Digest::of(other.as_bytes())), "what did not lead there is not of it");
    // `prove` checks the whole chain before it looks for a signature.
    let found = walk(&texts, &[Digest::of(inner.as_bytes())]).0.unwrap();
    assert!(ring(&[Digest::of(inner.as_bytes())]).refuse_revoked(&found.digests()).is_err());
}
