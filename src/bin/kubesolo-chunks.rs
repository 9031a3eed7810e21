//! `kubesolo-chunks`: the publisher's tool. Makes the chunk index of a layer, and says what a machine would fetch.
//!
//! Must never: get into an initramfs: machines read indexes, and make none.

use kubesolo_update::parts::chunks::index::{Index, MAX_CHUNKS};
use kubesolo_update::parts::chunks::plan::{Search, join, ranges, to_fetch};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "Usage: kubesolo-chunks index FILE >INDEX
       kubesolo-chunks compare OLD NEW

index writes the chunk index of FILE, a kernel or a layer of an initramfs as it is published. The scripts
that publish call it. compare says how many bytes of NEW a machine that runs OLD would fetch. Pack both with
`gzip -9n --rsyncable`: otherwise one changed byte changes all that follows.

  -h, --help   this text
  --version    the version
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let done = match words.as_slice() {
        ["-h" | "--help"] => say(USAGE.as_bytes()),
        ["--version"] => say(concat!("kubesolo-chunks ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        ["index", _] => make(Path::new(&arguments[1])),
        ["compare", _, _] => compare(Path::new(&arguments[1]), Path::new(&arguments[2])),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("kubesolo-chunks: {why}");
            ExitCode::FAILURE
        }
    }
}

fn open(path: &Path) -> Result<(File, u64), String> {
    let fail = |e: io::Error| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    match (meta.is_file(), meta.len()) {
        (false, _) => Err(format!("{}: not a regular file", path.display())),
        (true, 0) => Err(format!("{}: it is empty", path.display())),
        (true, size_bytes) => Ok((file, size_bytes)),
    }
}

fn index(path: &Path) -> Result<Index, String> {
    let (mut file, size_bytes) = open(path)?;
    let index = Index::of(&mut file, size_bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    match (index.size_bytes == size_bytes, index.chunks.len()) {
        (false, _) => Err(format!("{}: it changed while it was read", path.display())),
        (_, count) if count > MAX_CHUNKS => {
            Err(format!("{}: its content cuts it into {count} chunks, machines take {MAX_CHUNKS}", path.display()))
        }
        _ => Ok(index),
    }
}

fn make(path: &Path) -> Result<(), String> {
    say(&index(path)?.encode())
}

/// Writes all of it. What lies in a buffer when the program ends, nobody hears of.
fn say(bytes: &[u8]) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| format!("standard output: {e}"))
}

fn compare(old: &Path, new: &Path) -> Result<(), String> {
    let index = index(new)?;
    let index_bytes = index.encode().len();
    let count = index.chunks.len();
    let search = Search::new(index.chunks);
    let looked = search.look_through(&mut open(old)?.0, index.rule, &mut |_| {});
    let found = looked.map_err(|e| format!("{}: {e}", old.display()))?;
    let mut pieces = Vec::new();
    found.push_to(&mut pieces, 0..count);
    let pieces = join(pieces);
    let (fetch, ranges, size) = (to_fetch(&pieces), ranges(&pieces), index.size_bytes);
    say(format!("fetch={fetch} ranges={ranges} index={index_bytes} size={size}\n").as_bytes())
}
