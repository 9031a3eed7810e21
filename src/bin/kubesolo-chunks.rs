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
that publish call it. compare says how many bytes of NEW a machine that runs OLD would fetch: a line for
programs, and one for people. Pack both with `gzip -9n --rsyncable`: otherwise one changed byte changes all
that follows.

  -h, --help   this text
  --version    the version
";

/// What is smaller gets no index from the scripts that publish (scripts/lib/chunks.sh).
const LEAST_CHUNKED: u64 = 1 << 20;
/// Above this share, two files have hardly anything in common.
const MUCH_PERCENT: u64 = 80;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<_> = words.iter().map(|word| word.as_ref()).collect();
    let done = match words.as_slice() {
        _ if words.iter().any(|word| ["-h", "--help"].contains(word)) => say(USAGE.as_bytes()),
        ["--version"] => say(concat!("kubesolo-chunks ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        ["index", _] => make(Path::new(&arguments[1])),
        ["compare", _, _] => compare(Path::new(&arguments[1]), Path::new(&arguments[2])),
        _ => {
            eprintln!("kubesolo-chunks: {}; kubesolo-chunks --help explains", misuse(&words));
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

/// Says what is wrong with what was typed.
fn misuse(words: &[&str]) -> String {
    let (verb, files) = words.split_first().unwrap_or((&"", &[]));
    let (needs, most) = match *verb {
        "index" => ("index needs one FILE", 1),
        "compare" => ("compare needs OLD and NEW", 2),
        _ if words.is_empty() => return "a command is missing: index or compare".into(),
        "--version" => return "--version stands alone".into(),
        option if option.starts_with('-') => return format!("unknown option: {option}"),
        other => return format!("unknown command: {other}; there are index and compare"),
    };
    match files {
        [] => format!("{needs}, and no file is given"),
        [one] if most == 2 => format!("{needs}, and only {one} is given"),
        _ => format!("{needs}, and {} files are given", files.len()),
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
    let line = format!("fetch={fetch} ranges={ranges} index={index_bytes} size={size}\n");
    let numbers = Numbers { fetch, ranges, index: index_bytes as u64, size };
    say((line + &explained(&old.display().to_string(), &new.display().to_string(), &numbers)).as_bytes())
}

/// What `compare` finds, in bytes; `ranges` is their number.
struct Numbers {
    fetch: u64,
    ranges: usize,
    index: u64,
    size: u64,
}

/// The numbers in words, and what to do where they are bad.
fn explained(old: &str, new: &str, numbers: &Numbers) -> String {
    let Numbers { fetch, ranges, index, size } = *numbers;
    let [fetch_text, size_text, index_text] = [fetch, size, index].map(grouped);
    // In tenths, rounded up: not 0.0 % of something.
    let permille = (u128::from(fetch) * 1000).div_ceil(size.max(1).into());
    let ranges = match ranges {
        0 => String::new(),
        1 => " in 1 range".into(),
        many => format!(" in {many} ranges"),
    };
    let mut text = format!(
        "a machine that runs {old} would fetch {fetch_text} of the {size_text} bytes of {new} ({}.{} %){ranges}, and its index of \
         {index_text} bytes\n",
        permille / 10,
        permille % 10
    );
    if size < LEAST_CHUNKED {
        text += &format!(
            "{new} is smaller than 1 MiB: the scripts that publish make no index of it, and machines fetch all of it\n"
        );
    }
    if u128::from(fetch) * 100 > u128::from(size) * u128::from(MUCH_PERCENT) {
        text += &format!(
            "{old} and {new} have hardly anything in common: pack both with gzip -9n --rsyncable, with sorted names and fixed times\n"
        );
    }
    text
}

/// A number with a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3);
    digits.char_indices().flat_map(|(at, digit)| comma(at).then_some(',').into_iter().chain([digit])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misuse_names_what_is_missing_or_unknown() {
        for (words, said) in [
            (&[][..], "a command is missing: index or compare"),
            (&["comapre", "a", "b"], "unknown command: comapre; there are index and compare"),
            (&["--compare", "a"], "unknown option: --compare"),
            (&["--version", "a"], "--version stands alone"),
            (&["compare"], "compare needs OLD and NEW, and no file is given"),
            (&["compare", "a"], "compare needs OLD and NEW, and only a is given"),
            (&["compare", "a", "b", "c"], "compare needs OLD and NEW, and 3 files are given"),
            (&["index"], "index needs one FILE, and no file is given"),
            (&["index", "a", "b"], "index needs one FILE, and 2 files are given"),
        ] {
            assert_eq!(misuse(words), said);
        }
    }

    #[test]
    fn numbers_are_explained() {
        let said = |fetch, ranges, size| explained("OLD", "NEW", &Numbers { fetch, ranges, index: 9212, size });
        let first = "a machine that runs OLD would fetch 948,636 of the 16,186,389 bytes of NEW (5.9 %) in 2 ranges, and its index of \
                     9,212 bytes\n";
        assert_eq!(said(948_636, 2, 16_186_389), first);
        assert!(said(1, 1, 16_186_389).contains("fetch 1 of the 16,186,389 bytes of NEW (0.1 %) in 1 range, and"));
        assert!(said(0, 0, 16_186_389).contains("fetch 0 of the 16,186,389 bytes of NEW (0.0 %), and its index"));
        let hardly = "OLD and NEW have hardly anything in common: pack both with gzip -9n --rsyncable";
        for (fetch, much) in [(8_000_000, false), (8_000_001, true), (10_000_000, true)] {
            assert_eq!(said(fetch, 1, 10_000_000).contains(hardly), much, "{fetch}");
        }
        for (size, small) in [((1 << 20) - 1, true), (1 << 20, false)] {
            assert_eq!(said(0, 0, size).contains("NEW is smaller than 1 MiB"), small, "{size}");
        }
    }

    #[test]
    fn digits_stand_in_threes() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1 << 40, "1,099,511,627,776")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
