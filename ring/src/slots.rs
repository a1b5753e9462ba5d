//! A table with reused places for what the kernel borrows.

/// Values under small indices; a freed index is used again, latest first.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(value);
            return index;
        }
        self.places.push(Some(value));
        u32::try_from(self.places.len() - 1).expect("fewer than 2^32 operations are under way")
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        let value = self.places[index as usize].take();
        self.free.push(index);
        value.expect("an operation completes once")
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        self.places[index as usize].as_mut().expect("the operation is under way")
    }
}
