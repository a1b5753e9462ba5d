use super::*;

fn at(segment: u32) -> Pos {
    Pos { segment, offset: 4096 }
}

/// `count` sealed segments from 1 with 1,000 bytes each, footers written, and a complete checkpoint after them.
fn sealed(count: u32) -> Reclaim {
    let mut reclaim = Reclaim::default();
    for segment in 1..=count {
        reclaim.opened(segment);
        reclaim.sealed(segment, 1000);
        reclaim.footer_written(segment);
    }
    reclaim.opened(count + 1);
    reclaim.checkpoint_began(count + 1);
    reclaim.checkpoint_complete(0);
    reclaim
}

#[test]
fn a_segment_goes_when_its_last_entry_went_and_that_is_synced() {
    let mut reclaim = sealed(2);
    reclaim.entry_added(at(1), 100);
    reclaim.entry_added(at(1), 100);
    assert_eq!(reclaim.droppable(), [2]);
    reclaim.entry_removed(at(1), 100, 7);
    assert_eq!(reclaim.droppable(), [2]);
    reclaim.entry_removed(at(1), 100, 8);
    reclaim.durable(7);
    assert_eq!(reclaim.droppable(), [2]);
    reclaim.durable(8);
    assert_eq!(reclaim.droppable(), [1, 2]);
}

#[test]
fn a_tomb_stays_as_long_as_a_message_that_it_names() {
    let mut reclaim = sealed(3);
    reclaim.entry_added(at(1), 100);
    reclaim.tomb_refers(2, 1);
    reclaim.tomb_refers(2, 2);
    assert_eq!(reclaim.droppable(), [3]);
    reclaim.entry_removed(at(1), 100, 0);
    assert_eq!(reclaim.droppable(), [1, 3]);
    reclaim.dropped(1);
    assert_eq!(reclaim.droppable(), [2, 3]);
}

#[test]
fn who_names_a_copy_names_the_original_and_the_copies_between() {
    let mut reclaim = sealed(5);
    // 1 to 2 to 3; segments 1 and 2 are held back by TOMBs of theirs for a live message in 5.
    reclaim.entry_added(at(5), 100);
    reclaim.tomb_refers(1, 5);
    reclaim.tomb_refers(2, 5);
    reclaim.entry_added(at(1), 100);
    reclaim.entry_moved((at(1), 100), (at(2), 100), 0);
    reclaim.entry_moved((at(2), 100), (at(3), 100), 0);
    reclaim.entry_removed(at(3), 100, 0);
    reclaim.tomb_refers(4, 3);
    assert_eq!(reclaim.droppable(), [3]);
    reclaim.dropped(3);
    assert_eq!(reclaim.droppable(), [0; 0], "4 names a message that 1 and 2 still hold");
    reclaim.entry_removed(at(5), 100, 0);
    reclaim.dropped(5);
    assert_eq!(reclaim.droppable(), [1, 2]);
    reclaim.dropped(1);
    reclaim.dropped(2);
    assert_eq!(reclaim.droppable(), [4]);
}

#[test]
fn nothing_goes_before_a_dedup_checkpoint_after_it_is_complete_and_synced() {
    let mut reclaim = Reclaim::default();
    for segment in 1..=4 {
        reclaim.opened(segment);
        reclaim.sealed(segment, 1000);
        reclaim.footer_written(segment);
    }
    assert_eq!(reclaim.droppable(), [0; 0]);
    reclaim.checkpoint_began(3);
    assert_eq!(reclaim.droppable(), [0; 0]);
    reclaim.checkpoint_complete(9);
    reclaim.durable(8);
    assert_eq!(reclaim.droppable(), [0; 0]);
    reclaim.durable(9);
    assert_eq!(reclaim.droppable(), [1, 2]);
    // One that is never finished changes nothing.
    reclaim.checkpoint_began(4);
    assert_eq!(reclaim.droppable(), [1, 2]);
}

#[test]
fn a_segment_stays_while_an_older_one_lacks_its_footer_unless_that_is_quarantined() {
    let mut reclaim = Reclaim::default();
    for segment in 1..=3 {
        reclaim.opened(segment);
        reclaim.sealed(segment, 1000);
    }
    reclaim.footer_written(1);
    reclaim.footer_written(3);
    reclaim.opened(4);
    reclaim.checkpoint_began(4);
    reclaim.checkpoint_complete(0);
    assert_eq!(reclaim.droppable(), [1]);
    reclaim.quarantine(2);
    assert_eq!(reclaim.droppable(), [1, 3]);
}

const ANY_SIZE: Threshold = Threshold { live_percent: 40, log_bytes_min: 0 };

#[test]
fn the_sparsest_segment_is_rewritten_and_a_dense_log_is_left_alone() {
    let mut reclaim = sealed(3);
    reclaim.entry_added(at(1), 390);
    reclaim.entry_added(at(2), 100);
    reclaim.entry_added(at(3), 900);
    assert_eq!(reclaim.sparse(ANY_SIZE), None, "1,390 live bytes justify 3,000");
    reclaim.entry_removed(at(3), 900, 0);
    assert_eq!(reclaim.sparse(ANY_SIZE), Some(2));
    assert_eq!(reclaim.sparse(Threshold { log_bytes_min: 3001, ..ANY_SIZE }), None);
    reclaim.quarantine(2);
    assert_eq!(reclaim.sparse(ANY_SIZE), Some(1));
}

#[test]
fn one_long_lived_message_does_not_hold_back_many_segments_of_tombs() {
    let mut reclaim = sealed(10);
    reclaim.entry_added(at(1), 450);
    (2..=10).for_each(|tomb| reclaim.tomb_refers(tomb, 1));
    assert_eq!(reclaim.droppable(), [0; 0]);
    assert_eq!(reclaim.sparse(ANY_SIZE), Some(1), "45 % full, but 9,000 bytes wait for it");
}

#[test]
fn a_segment_without_frames_is_dropped() {
    let mut reclaim = Reclaim::default();
    reclaim.opened_empty(4);
    reclaim.opened(6);
    reclaim.checkpoint_began(6);
    reclaim.checkpoint_complete(0);
    assert_eq!(reclaim.droppable(), [4]);
    reclaim.dropped(4);
    assert_eq!(reclaim.segments().map(|s| s.segment).collect::<Vec<_>>(), [6]);
}

#[test]
fn a_segment_found_damaged_later_is_neither_dropped_nor_rewritten_from() {
    let mut reclaim = sealed(2);
    reclaim.entry_added(at(1), 10);
    reclaim.entry_added(at(2), 20);
    assert_eq!(reclaim.sparse(ANY_SIZE), Some(1));
    reclaim.quarantine(1);
    assert_eq!(reclaim.sparse(ANY_SIZE), Some(2));
    reclaim.entry_removed(at(1), 10, 0);
    reclaim.entry_removed(at(2), 20, 0);
    assert_eq!(reclaim.droppable(), [2]);
    reclaim.dropped(2);
    reclaim.quarantine(2);
    assert_eq!(reclaim.segments().filter(|segment| segment.quarantined).count(), 1);
}
