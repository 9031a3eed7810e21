//! Both documents say the same.

use super::*;
use crate::base::error::{Kind, Refused};

fn reply(form: Form) -> Reply {
    let mut reply = Reply::new(form, Some("check"));
    reply.members.field("version", &"it's $(reboot)\n`x` \"y\" \\ \u{c1}");
    reply.members.field("none", &None::<u64>);
    reply.members.open("slots", '[');
    for slot in ["A", "B"] {
        reply.members.open("", '{');
        reply.members.field("slot", &slot);
        reply.members.field("signed-by", &vec![slot.to_string(), "x".into()]);
        reply.members.close('}');
    }
    reply.members.close(']');
    reply.members.open("empty", '[');
    reply.members.close(']');
    let maps = vec![std::collections::BTreeMap::from([("count", 7u64), ("x", 8)])];
    reply.members.field("maps", &maps);
    reply.members.field("last", &true);
    reply
}

fn refused() -> Error {
    let refusal = |gate, hint| Refused { gate, why: "why\n".into(), hint };
    let refusals = vec![refusal("size", ""), refusal("maintenance_window", "--ignore-window overrides it")];
    Error::new(Kind::Gate, "refused").refusing(refusals)
}

#[test]
fn a_document_has_the_envelope_first() {
    let document = reply(Form::Json).document(4, Some(&refused()));
    let head = r#"{"schema_version":2,"command":"check","result":"refused","exit_code":4,"kind":"gate","message":"refused","refusals":[{"gate":"size","reason":"why ","hint":null},{"gate":"maintenance_window","reason":"why ","hint":"--ignore-window overrides it"}],"#;
    let tail = "\"version\":\"it's $(reboot)\\n`x` \\\"y\\\" \\\\ \u{c1}\",\"none\":null,\"slots\":[{\"slot\":\"A\",\"signed-by\":[\"A\",\"x\"]},{\"slot\":\"B\",\"signed-by\":[\"B\",\"x\"]}],\"empty\":[],\"maps\":[{\"count\":7,\"x\":8}],\"last\":true}\n";
    assert_eq!(document, [head, tail].concat());
}

#[test]
fn a_shell_gets_the_same() {
    let document = reply(Form::Shell).document(4, Some(&refused()));
    let lines = r#"KUBESOLO_SCHEMA_VERSION='2'
KUBESOLO_COMMAND='check'
KUBESOLO_RESULT='refused'
KUBESOLO_EXIT_CODE='4'
KUBESOLO_KIND='gate'
KUBESOLO_MESSAGE='refused'
KUBESOLO_REFUSALS_0_GATE='size'
KUBESOLO_REFUSALS_0_REASON='why '
KUBESOLO_REFUSALS_0_HINT=''
KUBESOLO_REFUSALS_1_GATE='maintenance_window'
KUBESOLO_REFUSALS_1_REASON='why '
KUBESOLO_REFUSALS_1_HINT='--ignore-window overrides it'
KUBESOLO_REFUSALS_COUNT='2'
KUBESOLO_VERSION='it'\''s $(reboot)
`x` "y" \ Á'
KUBESOLO_NONE=''
KUBESOLO_SLOTS_0_SLOT='A'
KUBESOLO_SLOTS_0_SIGNED_BY_0='A'
KUBESOLO_SLOTS_0_SIGNED_BY_1='x'
KUBESOLO_SLOTS_0_SIGNED_BY_COUNT='2'
KUBESOLO_SLOTS_1_SLOT='B'
KUBESOLO_SLOTS_1_SIGNED_BY_0='B'
KUBESOLO_SLOTS_1_SIGNED_BY_1='x'
KUBESOLO_SLOTS_1_SIGNED_BY_COUNT='2'
KUBESOLO_SLOTS_COUNT='2'
KUBESOLO_EMPTY_COUNT='0'
KUBESOLO_MAPS_0_COUNT='7'
KUBESOLO_MAPS_0_X='8'
KUBESOLO_MAPS_COUNT='1'
KUBESOLO_LAST='true'
"#;
    assert_eq!(document, lines);
}

#[test]
fn results_without_a_word_of_the_command() {
    let result = |error: Option<&Error>| {
        let document = Reply::new(Form::Json, None).document(0, error);
        document.split("\"result\":\"").nth(1).unwrap().split('"').next().unwrap().to_string()
    };
    assert_eq!(result(None), "done");
    assert_eq!(result(Some(&Error::new(Kind::Busy, "x"))), "error");
    assert_eq!(result(Some(&refused())), "refused");
}

#[test]
fn a_program_gets_no_lines_of_a_person() {
    let mut reply = Reply::new(Form::Json, None);
    reply.message("once");
    writeln!(reply, "never").unwrap();
    assert_eq!(
        reply.document(3, None),
        "{\"schema_version\":2,\"command\":null,\"result\":\"done\",\"exit_code\":3,\"message\":\"once\",\"refusals\":[]}\n"
    );
}
