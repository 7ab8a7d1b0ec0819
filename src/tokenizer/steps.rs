//! Where the windows of a long text begin and end.

use std::ops::Range;

/// Ranges of `room` that cover `all`, each beginning `stride` before the end of the one before it.
/// The last is shorter. `stride` must be less than `room`.
pub(super) fn steps(
    all: Range<usize>,
    room: usize,
    stride: usize,
) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    let window = move |start: usize| start..end.min(start + room);
    std::iter::successors(Some(window(all.start)), move |last| {
        (last.end < end).then(|| window(last.end - stride))
    })
}

/// As [`steps`], from the end of `all` on, as where texts are cut at their beginning: the first
/// range is the shorter one.
pub(super) fn steps_from_end(all: Range<usize>, room: usize, stride: usize) -> Vec<Range<usize>> {
    let (start, end) = (all.start, all.end);
    let mirrored = |range: Range<usize>| start + end - range.end..start + end - range.start;
    let mut ranges: Vec<_> = steps(all, room, stride).map(mirrored).collect();
    ranges.reverse();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_everything() {
        let ranges = |all, room, stride| steps(all, room, stride).collect::<Vec<_>>();
        assert_eq!(ranges(0..10, 4, 1), [0..4, 3..7, 6..10]);
        assert_eq!(ranges(0..11, 4, 1), [0..4, 3..7, 6..10, 9..11]);
        assert_eq!(ranges(2..8, 3, 0), [2..5, 5..8]);
        assert_eq!(ranges(0..6, 4, 3), [0..4, 1..5, 2..6]);
        assert_eq!(steps_from_end(0..10, 4, 1), [0..4, 3..7, 6..10]);
        assert_eq!(steps_from_end(2..11, 4, 1), [2..5, 4..8, 7..11]);
    }
}
