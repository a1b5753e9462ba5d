//! Whole frames out of a stream of bytes, whatever the pieces.

/// The start of a frame whose end has not come yet; empty, and without memory, between frames.
#[derive(Debug, Default)]
pub(super) struct Cut(pub(super) Vec<u8>);

impl Cut {
    /// Gives `act` each frame that is whole with `bytes`, where it lies if it was not cut, and keeps the rest.
    ///
    /// `length_of` says how long the frame at the start of some bytes is, `None` while too few of them have come to know;
    /// it bounds what is kept, so it refuses lengths that no frame may have.
    pub(super) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        length_of: impl Fn(&[u8]) -> Result<Option<usize>, E>,
        mut act: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.0.is_empty() {
            loop {
                let lacks = length_of(&self.0)?.map_or(1, |whole| whole - self.0.len());
                let (taken, rest) = bytes.split_at(lacks.min(bytes.len()));
                self.0.extend_from_slice(taken);
                bytes = rest;
                if taken.len() < lacks {
                    return Ok(());
                }
                if length_of(&self.0)? == Some(self.0.len()) {
                    break;
                }
            }
            act(&std::mem::take(&mut self.0))?;
        }
        while let Some(whole) = length_of(bytes)?
            && whole <= bytes.len()
        {
            let (frame, rest) = bytes.split_at(whole);
            act(frame)?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.0.extend_from_slice(bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte of length, then so many bytes; 9 is too long.
    fn length_of(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        match bytes.first() {
            Some(9) => Err("too long"),
            first => Ok(first.map(|length| 1 + usize::from(*length))),
        }
    }

    #[test]
    fn frames_come_whole_and_in_order_however_they_are_cut() {
        let stream = [0, 3, 1, 2, 3, 1, 7, 0, 2, 8, 8];
        for piece in 1..=stream.len() {
            let (mut cut, mut frames) = (Cut::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                let act = |frame: &[u8]| {
                    frames.push(frame.to_vec());
                    Ok(())
                };
                cut.feed(bytes, length_of, act).unwrap();
            }
            assert_eq!(frames.concat(), stream, "in pieces of {piece}");
            assert_eq!(frames.len(), 5);
            assert_eq!(cut.0.capacity(), 0);
        }
    }

    #[test]
    fn a_length_that_may_not_be_is_refused_before_its_bytes_are_kept() {
        let mut cut = Cut::default();
        assert_eq!(cut.feed(&[1, 1, 9, 9, 9], length_of, |_| Ok(())), Err("too long"));
        assert!(cut.0.is_empty());
    }
}
