//! A list of descriptors as it stands in a document: each with its index, without those that are `null`. Pure.
//!
//! An entry that other readers take for empty must not fail the whole list. Must never: allocate memory for a `null`.

use crate::oci::descriptor::RawDescriptor;
use miniserde::de::{Deserialize, Seq, Visitor};
use miniserde::{Result, make_place};

/// The descriptors of an index, or the layers of a manifest.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Each with its number in the document, from 0.
    pub(super) list: Vec<(usize, RawDescriptor)>,
}

make_place!(Place);

struct Builder<'a> {
    out: &'a mut Option<Entries>,
    entries: Entries,
    /// Number of the entry being read.
    at: usize,
    element: Option<Option<RawDescriptor>>,
}

impl Builder<'_> {
    fn shift(&mut self) {
        if let Some(element) = self.element.take() {
            self.entries.list.extend(element.map(|descriptor| (self.at, descriptor)));
            self.at += 1;
        }
    }
}

impl Seq for Builder<'_> {
    fn element(&mut self) -> Result<&mut dyn Visitor> {
        self.shift();
        Ok(Deserialize::begin(&mut self.element))
    }

    fn finish(&mut self) -> Result<()> {
        self.shift();
        *self.out = Some(std::mem::take(&mut self.entries));
        Ok(())
    }
}

impl Visitor for Place<Entries> {
    fn seq(&mut self) -> Result<Box<dyn Seq + '_>> {
        Ok(Box::new(Builder { out: &mut self.out, entries: <Entries as Default>::default(), at: 0, element: None }))
    }
}

impl Deserialize for Entries {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}
