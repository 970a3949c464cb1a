//! What someone probably meant.

/// The candidate closest to `word`, when it is close enough to have been meant.
pub(super) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= 3)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= tolerance(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// One slip in a short word, two in a longer one, three in a long one: more and the guess would be noise.
fn tolerance(candidate: &str) -> usize {
    (candidate.chars().count() / 4).clamp(1, 3)
}

/// Edit distance with neighbours exchanged counted as one slip (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_another_word_finds_none() {
        let known = ["lifetime", "leeway", "issuer", "audience"];
        assert_eq!(closest("lifetme", known), Some("lifetime"));
        assert_eq!(closest("life", known), None);
        assert_eq!(closest("isuser", known), Some("issuer"));
        assert_eq!(closest("realm", known), None);
        assert_eq!(closest("", known), None);
    }

    #[test]
    fn exchanged_neighbours_are_one_slip() {
        assert_eq!(distance("tokne", "token"), 1);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
