//! One entry of Docker's `config.json`, as written there. Pure.
//!
//! Must never: let one malformed entry spoil another.

use crate::base::json::Field;
use miniserde::de::{Map, Seq, Visitor};
use miniserde::{Deserialize, make_place};

/// One entry. If it is not an object, it is itself wrong and does not spoil the file.
#[derive(Default)]
pub(crate) struct RawAuth {
    pub(crate) auth: Field<String>,
    pub(crate) username: Field<String>,
    pub(crate) password: Field<String>,
    pub(crate) identitytoken: Field<String>,
    pub(crate) registrytoken: Field<String>,
    /// The entry is a text: valid as a helper's name, not as an entry of `auths`.
    pub(crate) text: Option<String>,
    /// The entry is neither text nor object nor null.
    pub(crate) is_wrong: bool,
}

/// Entries in the order of their keys, each unique (json.rs). A standard library map takes 2 KB more.
#[derive(Default)]
pub(crate) struct RawAuths(pub(crate) Vec<(String, RawAuth)>);

make_place!(Place);

impl Deserialize for RawAuths {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

impl Visitor for Place<RawAuths> {
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        Ok(Box::new(Entries { out: &mut self.out, read: Vec::new() }))
    }
}

/// The entries during parsing, in file order.
struct Entries<'a> {
    out: &'a mut Option<RawAuths>,
    read: Vec<(String, Option<RawAuth>)>,
}

impl Map for Entries<'_> {
    fn key(&mut self, name: &str) -> miniserde::Result<&mut dyn Visitor> {
        let at = self.read.len();
        self.read.push((name.to_owned(), None));
        Ok(Deserialize::begin(&mut self.read[at].1))
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        let mut read = std::mem::take(&mut self.read);
        read.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        *self.out = Some(RawAuths(read.into_iter().filter_map(|(key, auth)| Some((key, auth?))).collect()));
        Ok(())
    }
}

impl Deserialize for RawAuth {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

impl Place<RawAuth> {
    fn wrong(&mut self) -> miniserde::Result<()> {
        self.out = Some(RawAuth { is_wrong: true, ..<RawAuth as Default>::default() });
        Ok(())
    }
}

impl Visitor for Place<RawAuth> {
    fn null(&mut self) -> miniserde::Result<()> {
        self.out = Some(<RawAuth as Default>::default());
        Ok(())
    }
    fn boolean(&mut self, _: bool) -> miniserde::Result<()> {
        self.wrong()
    }
    fn string(&mut self, text: &str) -> miniserde::Result<()> {
        self.out = Some(RawAuth { text: Some(text.to_owned()), ..<RawAuth as Default>::default() });
        Ok(())
    }
    fn negative(&mut self, _: i64) -> miniserde::Result<()> {
        self.wrong()
    }
    fn nonnegative(&mut self, _: u64) -> miniserde::Result<()> {
        self.wrong()
    }
    fn float(&mut self, _: f64) -> miniserde::Result<()> {
        self.wrong()
    }
    fn seq(&mut self) -> miniserde::Result<Box<dyn Seq + '_>> {
        self.wrong()?;
        <dyn Visitor>::ignore().seq()
    }
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        Ok(Box::new(Members { out: &mut self.out, values: Default::default() }))
    }
}

/// Names of an entry's fields, in the order of [`Members::values`].
const MEMBERS: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];

/// The members of one entry during parsing.
struct Members<'a> {
    out: &'a mut Option<RawAuth>,
    values: [Option<Field<String>>; 5],
}

impl Map for Members<'_> {
    fn key(&mut self, name: &str) -> miniserde::Result<&mut dyn Visitor> {
        match MEMBERS.iter().position(|member| *member == name) {
            Some(at) => Ok(Deserialize::begin(&mut self.values[at])),
            None => Ok(<dyn Visitor>::ignore()),
        }
    }

    fn finish(&mut self) -> miniserde::Result<()> {
        let [auth, username, password, identitytoken, registrytoken] =
            std::mem::take(&mut self.values).map(Option::unwrap_or_default);
        let (text, is_wrong) = (None, false);
        *self.out = Some(RawAuth { auth, username, password, identitytoken, registrytoken, text, is_wrong });
        Ok(())
    }
}
