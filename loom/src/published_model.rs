//! A value that handlers read while another thread replaces it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use loom::thread;

use crate::check;
use crate::sync;
use crate::sys::published::{Published, Reader};

#[derive(Default)]
struct Place(sync::AtomicBool);

impl Reader for Place {
    fn reading(&self) -> &sync::AtomicBool {
        &self.0
    }
}

/// Says when it is freed, in a place that outlives it.
struct Value {
    number: usize,
    freed: Arc<Freed>,
}

type Freed = [AtomicBool; 3];

impl Drop for Value {
    fn drop(&mut self) {
        assert!(!self.freed[self.number].swap(true, Ordering::Relaxed), "freed twice");
    }
}

type Shared = Arc<Published<Value, Place>>;

/// Reads twice, as a handler that is called again does.
fn read(published: &Shared, freed: &Freed, place: usize) {
    for _ in 0..2 {
        let look = |value: Option<&Value>| {
            let Some(value) = value else { return };
            let number = value.number;
            // The others go on meanwhile.
            thread::yield_now();
            assert!(!freed[number].load(Ordering::Relaxed), "value {number} was freed while read");
            assert!(published.read(place, |_| ()).is_err(), "taken while reading");
        };
        published.read(place, look).expect("the place is this thread's");
    }
}

pub(crate) fn check_all() {
    check("published: no reader holds a freed value", || {
        let places: &'static [Place] = Vec::leak(vec![Place::default()]);
        let published: Shared = Arc::new(Published::new(places));
        let freed: Arc<Freed> = Arc::default();
        let value = |number| Some(Box::new(Value { number, freed: freed.clone() }));
        assert!(published.replace(value(0)).is_none());
        let reader = {
            let (published, freed) = (published.clone(), freed.clone());
            thread::spawn(move || read(&published, &freed, 0))
        };
        let mut retired = Vec::new();
        for next in [value(1), None] {
            retired.extend(published.replace(next));
            published.reclaim(&mut retired);
        }
        reader.join().expect("it ends");
        published.reclaim(&mut retired);
        assert!(retired.is_empty());
        let freed = freed.each_ref().map(|freed| freed.load(Ordering::Relaxed));
        assert_eq!(freed, [true, true, false]);
    });

    check("published: two readers, and each counts", || {
        let places: &'static [Place] = Vec::leak(vec![Place::default(), Place::default()]);
        let published: Shared = Arc::new(Published::new(places));
        let freed: Arc<Freed> = Arc::default();
        assert!(published.replace(Some(Box::new(Value { number: 0, freed: freed.clone() }))).is_none());
        let readers: Vec<_> = (0..2)
            .map(|place| {
                let (published, freed) = (published.clone(), freed.clone());
                thread::spawn(move || {
                    let look = |value: Option<&Value>| {
                        let Some(value) = value else { return };
                        thread::yield_now();
                        assert!(!freed[value.number].load(Ordering::Relaxed), "freed while read");
                    };
                    published.read(place, look).expect("free");
                })
            })
            .collect();
        let mut retired: Vec<_> = published.replace(None).into_iter().collect();
        published.reclaim(&mut retired);
        for reader in readers {
            reader.join().expect("it ends");
        }
        published.reclaim(&mut retired);
        assert!(retired.is_empty() && freed[0].load(Ordering::Relaxed));
    });
}
