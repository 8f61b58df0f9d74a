//! A window's texts: the names and labels of its spans, within bounds, as the server is to see them. Read while the
//! spans' label sets are still there, which is until shortly after a sample was taken.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::config::Normalizer;
use crate::spans::{LabelPair, LabelSetId, LabelSets, cut};

/// Combinations of label values that one window tells apart.
const MAX_COMBINATIONS: usize = 1000;

/// What takes the place of a text that is one too many.
const OTHER: &str = "other";

/// What a sample says about its span in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Texts {
    /// Empty for none.
    pub(crate) name: Arc<str>,
    pub(crate) labels: Arc<[LabelPair]>,
}

/// How often something else was said than what the span says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folds {
    /// Spans whose name became `other`.
    pub(crate) names: u64,
    /// Spans whose label values became `other`.
    pub(crate) labels: u64,
    /// Panics of the normalizer.
    pub(crate) panics: u64,
}

/// How texts are made of label sets.
pub(crate) struct Editor {
    sets: &'static LabelSets,
    most_names: usize,
    normalizer: Option<Normalizer>,
    /// Since the beginning.
    folds: Folds,
    window: Window,
    other: Arc<str>,
    nothing: Arc<[LabelPair]>,
}

/// What a window has so far.
#[derive(Default)]
struct Window {
    known: HashMap<LabelSetId, Edited>,
    names: HashSet<Arc<str>>,
    combinations: HashSet<Arc<[LabelPair]>>,
    has_panicked: bool,
}

#[derive(Clone)]
struct Edited {
    texts: Texts,
    is_name_folded: bool,
    are_labels_folded: bool,
}

impl Editor {
    /// Tells `most_names` names apart in each window, each as `normalizer` would have it.
    pub(crate) fn new(sets: &'static LabelSets, most_names: usize, normalizer: Option<Normalizer>) -> Self {
        Self {
            sets,
            most_names,
            normalizer,
            folds: Folds::default(),
            window: Window::default(),
            other: Arc::from(OTHER),
            nothing: Arc::from([]),
        }
    }

    pub(super) fn folds(&self) -> Folds {
        self.folds
    }

    /// Begins a new window.
    pub(super) fn begin(&mut self) {
        self.window = Window::default();
    }

    /// What samples of a span with this set say. Asked once for each span and window.
    pub(super) fn texts(&mut self, id: LabelSetId) -> Texts {
        let edited = self.edited(id);
        self.folds.names += u64::from(edited.is_name_folded);
        self.folds.labels += u64::from(edited.are_labels_folded);
        edited.texts
    }

    /// The local root's name alone.
    pub(super) fn name(&mut self, id: LabelSetId) -> Arc<str> {
        self.edited(id).texts.name
    }

    fn edited(&mut self, id: LabelSetId) -> Edited {
        if let Some(edited) = self.window.known.get(&id) {
            return edited.clone();
        }
        let edited = self.edit(id);
        self.window.known.insert(id, edited.clone());
        edited
    }

    fn edit(&mut self, id: LabelSetId) -> Edited {
        let Some(set) = self.sets.get(id) else {
            // Gone, if there ever was one.
            let is_name_folded = id != LabelSetId::NONE;
            let name = if is_name_folded { self.other.clone() } else { Arc::from("") };
            let texts = Texts { name, labels: self.nothing.clone() };
            return Edited { texts, is_name_folded, are_labels_folded: false };
        };
        let (name, is_name_folded) = self.edit_name(&set.name);
        let (labels, are_labels_folded) = self.edit_labels(&set.labels);
        Edited { texts: Texts { name, labels }, is_name_folded, are_labels_folded }
    }

    fn edit_name(&mut self, name: &Arc<str>) -> (Arc<str>, bool) {
        let name = match self.normalize(name) {
            Some(name) => name,
            None => return (self.other.clone(), true),
        };
        if name.is_empty() {
            return (name, false);
        }
        if let Some(known) = self.window.names.get(&name) {
            return (known.clone(), false);
        }
        if self.window.names.len() >= self.most_names {
            return (self.other.clone(), true);
        }
        self.window.names.insert(name.clone());
        (name, false)
    }

    /// `None` if the normalizer panics, or has in this window: each panic is reported by the host's panic hook.
    fn normalize(&mut self, name: &Arc<str>) -> Option<Arc<str>> {
        let Some(normalizer) = self.normalizer.as_ref().filter(|_| !name.is_empty()) else {
            return Some(name.clone());
        };
        if self.window.has_panicked {
            return None;
        }
        let normalized = catch_unwind(AssertUnwindSafe(|| Arc::from(cut(&normalizer(name)))));
        if normalized.is_err() {
            if self.folds.panics == 0 {
                tracing::error!(
                    "the span name normalizer panicked: names are `other` until the next profile"
                );
            }
            self.folds.panics += 1;
            self.window.has_panicked = true;
        }
        normalized.ok()
    }

    fn edit_labels(&mut self, labels: &Arc<[LabelPair]>) -> (Arc<[LabelPair]>, bool) {
        if labels.is_empty() {
            return (self.nothing.clone(), false);
        }
        if let Some(known) = self.window.combinations.get(labels) {
            return (known.clone(), false);
        }
        if self.window.combinations.len() >= MAX_COMBINATIONS {
            return (labels.iter().map(|(label, _)| (label.clone(), self.other.clone())).collect(), true);
        }
        self.window.combinations.insert(labels.clone());
        (labels.clone(), false)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn editor(most_names: usize, normalizer: Option<Normalizer>) -> (Editor, &'static LabelSets) {
        let sets: &'static LabelSets = Box::leak(Box::new(LabelSets::new()));
        (Editor::new(sets, most_names, normalizer), sets)
    }

    #[test]
    fn names_beyond_the_window_s_bound_are_other_and_the_next_window_tells_them_apart() {
        let (mut editor, sets) = editor(2, None);
        let ids: Vec<LabelSetId> = (0..4).map(|i| sets.intern(&format!("name {i}"), &[])).collect();
        let names = |editor: &mut Editor, order: &[usize]| -> Vec<String> {
            order.iter().map(|i| editor.texts(ids[*i]).name.to_string()).collect()
        };
        assert_eq!(names(&mut editor, &[0, 1, 2, 3, 0]), ["name 0", "name 1", "other", "other", "name 0"]);
        assert_eq!(editor.folds(), Folds { names: 2, ..Folds::default() });
        editor.begin();
        assert_eq!(names(&mut editor, &[3, 2, 1]), ["name 3", "name 2", "other"]);
        assert_eq!(&*editor.texts(LabelSetId::NONE).name, "");
        assert_eq!(editor.folds().names, 3);
        // Sets that there was no room for, or that are gone.
        for id in [LabelSetId::OTHER, LabelSetId(9_999_999)] {
            assert_eq!(&*editor.texts(id).name, "other");
        }
        assert_eq!(editor.folds().names, 5);
    }

    #[test]
    fn names_are_counted_as_the_normalizer_would_have_them() {
        let normalizer: Normalizer = Box::new(|name| match name.split_once('?') {
            Some((path, _)) => Cow::Borrowed(path),
            None => Cow::Owned(format!("{name}{}", "!".repeat(1_000))),
        });
        let (mut editor, sets) = editor(2, Some(normalizer));
        for i in 0..100 {
            assert_eq!(&*editor.texts(sets.intern(&format!("GET /pay?{i}"), &[])).name, "GET /pay");
        }
        let long = editor.texts(sets.intern("loud", &[])).name;
        assert_eq!((long.len(), &long[..6]), (256, "loud!!"));
        assert_eq!(&*editor.texts(sets.intern("?", &[])).name, "", "an empty name is none");
        assert_eq!(editor.folds(), Folds::default());
    }

    #[test]
    fn a_normalizer_that_panics_costs_names_of_one_window() {
        let normalizer: Normalizer = Box::new(|name| {
            if name == "bad" {
                // A panic without the report of one.
                std::panic::resume_unwind(Box::new("normalizer"));
            }
            Cow::Borrowed(name)
        });
        let (mut editor, sets) = editor(10, Some(normalizer));
        let [good, bad, later] = ["good", "bad", "later"].map(|name| sets.intern(name, &[]));
        let names = [good, bad, later, good].map(|id| editor.texts(id).name.to_string());
        assert_eq!(names, ["good", "other", "other", "good"]);
        editor.begin();
        assert_eq!(&*editor.texts(later).name, "later");
        assert_eq!(editor.folds(), Folds { names: 2, labels: 0, panics: 1 });
    }

    #[test]
    fn combinations_of_values_are_bounded_and_the_label_stays() {
        let (mut editor, sets) = editor(10, None);
        let label: Arc<str> = Arc::from("tenant");
        let id = |i: usize| sets.intern("pay", &[(label.clone(), Cow::Owned(format!("t{i}")))]);
        for i in 0..MAX_COMBINATIONS {
            assert_eq!(*editor.texts(id(i)).labels[0].1, *format!("t{i}"));
        }
        let folded = editor.texts(id(MAX_COMBINATIONS));
        assert_eq!((&*folded.name, &*folded.labels), ("pay", &[(label.clone(), Arc::from("other"))][..]));
        assert_eq!(*editor.texts(id(7)).labels[0].1, *"t7");
        assert_eq!(editor.folds(), Folds { labels: 1, ..Folds::default() });
        editor.begin();
        assert_eq!(*editor.texts(id(MAX_COMBINATIONS)).labels[0].1, *format!("t{MAX_COMBINATIONS}"));
    }
}
