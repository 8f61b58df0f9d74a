use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use std::io::Write as _;
use tokio::sync::Semaphore;

use super::super::memory;
use super::*;

const ANY: usize = usize::MAX / 2;

fn allowed(sent: usize, whole: usize) -> Allowed {
    Allowed {
        sent: Most { name: "max_request_bytes", bytes: sent },
        whole: Most { name: "max_message_bytes", bytes: whole },
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

/// A body that comes in parts of this size.
fn in_parts(bytes: &[u8], size: usize) -> Body {
    let parts: std::collections::VecDeque<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    Body::new(Parts(parts))
}

struct Parts(std::collections::VecDeque<Bytes>);

impl HttpBody for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }
}

async fn whole(body: Body, gzip: bool, allowed: Allowed) -> Result<Bytes, Option<Trouble>> {
    let (body, fate) = Bounded::new(body, gzip, allowed, Memory::new(None));
    match body.collect().await {
        Ok(whole) => {
            assert_eq!(fate.end().await, None);
            Ok(whole.to_bytes())
        }
        Err(_) => Err(fate.end().await),
    }
}

#[tokio::test]
async fn the_limit_is_the_last_length_that_passes_and_what_comes_beyond_is_counted() {
    assert_eq!(whole(Body::from("12345"), false, allowed(5, 5)).await.unwrap(), "12345");
    let trouble = whole(in_parts(b"1234567", 1), false, allowed(5, ANY)).await.unwrap_err();
    let most = Most { name: "max_request_bytes", bytes: 5 };
    assert_eq!(trouble, Some(Trouble::TooLong { most, got: 7, decompressed: false }));
    let trouble = whole(Body::from("123456"), false, allowed(ANY, 5)).await.unwrap_err();
    let most = Most { name: "max_message_bytes", bytes: 5 };
    assert_eq!(
        trouble,
        Some(Trouble::TooLong { most, got: 6, decompressed: false }),
        "what is not compressed is whole as it is"
    );
}

#[tokio::test]
async fn a_bomb_is_told_before_it_is_large() {
    let bomb = gzip(&vec![0; 64 << 20]);
    let trouble = whole(Body::from(bomb), true, allowed(ANY, 1 << 20)).await.unwrap_err();
    let Some(Trouble::TooLong { got, decompressed: true, .. }) = trouble else {
        panic!("{trouble:?}");
    };
    assert!(got <= (1 << 20) + (256 << 10), "{got}");
}

#[tokio::test]
async fn what_is_not_gzip_is_said_to_be_so() {
    let good = gzip(b"hello");
    for bad in [&b"hello"[..], &good[..good.len() - 1], &good[..5], &[&good[..], b"x"].concat()] {
        let trouble = whole(in_parts(bad, 3), true, allowed(ANY, ANY)).await.unwrap_err();
        assert!(matches!(trouble, Some(Trouble::NotGzip(_))), "{bad:?}: {trouble:?}");
    }
    assert_eq!(whole(Body::empty(), true, allowed(ANY, ANY)).await.unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn memory_is_taken_for_what_came_and_for_nothing_else() {
    let pool: Arc<Semaphore> = memory::pool(256 << 10);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(8);
    struct Channel(tokio::sync::mpsc::Receiver<Bytes>);
    impl HttpBody for Channel {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
        }
    }
    let memory = Memory::new(Some(Arc::clone(&pool)));
    let body = Body::new(Channel(receiver));
    let (mut body, fate) = Bounded::new(body, true, allowed(ANY, ANY), memory);
    assert_eq!(pool.available_permits(), 256, "a silent sender holds nothing");
    let packed = gzip(&vec![7; 200 << 10]);
    sender.send(packed.into()).await.unwrap();
    drop(sender);
    let mut got = 0;
    while got < 100 << 10 {
        let frame = body.frame().await.expect("more").expect("good");
        got += frame.data_ref().expect("data").len();
        assert_eq!(pool.available_permits(), 256 - got.div_ceil(1024));
    }
    let other = Arc::clone(&pool).try_acquire_many_owned(pool.available_permits() as u32).unwrap();
    assert!(body.frame().await.expect("an end").is_err(), "the rest waits for memory, and not for ever");
    assert_eq!(fate.end().await, Some(Trouble::NoMemory));
    drop((other, body));
    assert_eq!(pool.available_permits(), 256);
}

proptest! {
    #[test]
    fn what_was_compressed_comes_out(
        parts in prop::collection::vec((any::<u8>(), 0..40_000_usize), 1..5),
        size in 1..5000_usize,
    ) {
        let plain: Vec<u8> = parts.iter().flat_map(|&(byte, times)| vec![byte; times]).collect();
        // As many members as there are parts.
        let packed: Vec<u8> = parts.iter().flat_map(|&(byte, times)| gzip(&vec![byte; times])).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let got = runtime.block_on(whole(in_parts(&packed, size), true, allowed(packed.len(), plain.len())));
        prop_assert_eq!(got.expect("within its limits"), plain);
    }

    #[test]
    fn anything_that_comes_as_gzip_ends(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut packed = gzip(b"some text, and some text again");
        packed.truncate(packed.len().saturating_sub(bytes.len() % 30));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for input in [bytes.clone(), [packed, bytes].concat()] {
            let _ = runtime.block_on(whole(in_parts(&input, 7), true, allowed(ANY, 1 << 20)));
        }
    }
}
