//! gzip of which one part after the other comes and is decompressed, in steps whose results are small whatever the input.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;

/// How large the result of a step is about, in bytes; the decoder adds what it holds back, some 32 KiB.
const STEP_BYTES: usize = 64 << 10;

/// What was not decompressed yet.
pub(super) struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    input: Bytes,
    begun: bool,
}

impl Default for Gunzip {
    fn default() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), input: Bytes::new(), begun: false }
    }
}

impl Gunzip {
    /// Whether there is something to do for [`Self::step`].
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Takes the next part in, once the one before it is used up.
    pub(super) fn feed(&mut self, part: Bytes) {
        self.begun |= !part.is_empty();
        self.input = part;
    }

    /// Decompresses some of what came; the result may be empty.
    ///
    /// # Errors
    /// When it is not gzip, and why.
    pub(super) fn step(&mut self) -> Result<Bytes, String> {
        while !self.input.is_empty() && self.decoder.get_ref().len() < STEP_BYTES {
            match self.decoder.write(&self.input) {
                Ok(0) => return Err("it has a part that is none".to_owned()),
                Ok(used) => self.input.advance(used),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }

    /// The last of it. Nothing at all is no gzip, but an empty body.
    ///
    /// # Errors
    /// When it is not all there, and why.
    pub(super) fn finish(mut self) -> Result<Bytes, String> {
        if self.begun {
            self.decoder.try_finish().map_err(|error| error.to_string())?;
        }
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }
}
