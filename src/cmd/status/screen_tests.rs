//! Tests of the screen's parts; whole screens are in tests/disk/status.rs.

use super::*;

#[test]
fn colours_are_decided_by_three_facts() {
    for (is_terminal, term, no_color, coloured) in [
        (true, Some("linux"), None, true),
        (true, Some("xterm-256color"), Some(""), true),
        (true, Some("linux"), Some("1"), false),
        (true, Some("linux"), Some("0"), false),
        (true, Some("dumb"), None, false),
        (true, Some(""), None, false),
        (true, None, None, false),
        (false, Some("linux"), None, false),
        (false, Some("linux"), Some(""), false),
    ] {
        let found = is_coloured(is_terminal, term, no_color);
        assert_eq!(found, coloured, "{is_terminal} {term:?} {no_color:?}");
    }
}

/// A line that is not the first.
fn drawn(label: &str, text: &str, coloured: bool) -> String {
    let mut page = Page { text: "\n".into(), said: Vec::new(), coloured, is_verbose: false };
    page.line(label, &[text]);
    page.finish()[1..].to_string()
}

#[test]
fn no_text_is_wider_than_the_screen() {
    let long = "x".repeat(200);
    for text in [
        long.as_str(),
        &format!("a {long} b"),
        &"word ".repeat(100),
        &"gap      ".repeat(50),
        &"系统".repeat(60),
        &" ".repeat(300),
        &format!("{}{}", "y".repeat(72), " end"),
        &format!("{RED}{}{PLAIN} {RED}end{PLAIN}", "z".repeat(72)),
        "",
    ] {
        for label in ["", "Note"] {
            let page = drawn(label, text, false);
            let wide = |line: &str| line.chars().map(|c| if c > 'ſ' { 2 } else { 1 }).sum::<usize>();
            assert!(page.lines().all(|line| wide(line) <= 80), "{page}");
            assert!(page.lines().skip(1).all(|line| line.starts_with("        ") && line.len() > 8), "{page}");
            let bare = |text: &str| text.replace(|c: char| c.is_whitespace() || c.is_control(), "");
            assert_eq!(bare(&page), format!("{label}{}", bare(text)));
            // Colours change neither words nor lines.
            let mut coloured = drawn(label, text, true);
            ESCAPES.iter().for_each(|escape| coloured = coloured.replace(escape, ""));
            assert_eq!(coloured, page);
        }
    }
    assert_eq!(drawn("Boot", &format!("{}ok{PLAIN}", GREEN), true), "Boot    \u{1b}[32mok\u{1b}[0m\n");
    // 80 columns to the last.
    assert_eq!(drawn("Next", &format!("{} {}", "a".repeat(35), "b".repeat(36)), false).lines().count(), 1);
    let (a, b) = ("a".repeat(35), "b".repeat(37));
    assert_eq!(drawn("Next", &format!("{a} {b}"), false), format!("Next    {a}\n        {b}\n"));
}
