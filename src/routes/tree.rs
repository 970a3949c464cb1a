//! The tree of patterns that finds a path's routes: segment by segment, a literal before a parameter before all below.

use super::pattern::{Pattern, Segment};

/// The routes of one pattern, by their methods.
pub type Leaf = Vec<usize>;

/// What a slash at the end of a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slash {
    /// Another path.
    Counts,
    /// The same path, where nothing else is below: most servers serve the same for both, and a wider route with other groups
    /// must not lead there.
    Ignored,
}

/// One node: the patterns that share its segments.
#[derive(Debug, Default)]
pub struct Tree {
    /// Sorted by segment.
    literals: Vec<(Box<str>, Tree)>,
    parameter: Option<Box<Tree>>,
    here: Leaf,
    below: Leaf,
}

impl Tree {
    /// The routes of `pattern`, to add to.
    pub fn leaf(&mut self, pattern: &Pattern) -> &mut Leaf {
        let node = pattern.segments().iter().fold(self, |node, segment| match segment {
            Segment::Literal(text) => {
                let at = match node.literals.binary_search_by(|(known, _)| known.cmp(text)) {
                    Ok(at) => at,
                    Err(at) => {
                        node.literals.insert(at, (text.clone(), Self::default()));
                        at
                    }
                };
                &mut node.literals[at].1
            }
            Segment::Parameter(_) => node.parameter.get_or_insert_default(),
        });
        if pattern.and_below() { &mut node.below } else { &mut node.here }
    }

    /// The routes of the most specific pattern that matches a normalised path.
    pub fn find(&self, path: &str, slash: Slash) -> Option<&Leaf> {
        let rest = path.strip_prefix('/')?;
        self.find_rest(if rest.is_empty() { None } else { Some(rest) }, slash)
    }

    /// Goes back a step where a more specific branch ends without a match. How often is bounded by the configured patterns,
    /// not by the request.
    fn find_rest(&self, rest: Option<&str>, slash: Slash) -> Option<&Leaf> {
        let below = || some(&self.below);
        let Some(rest) = rest else { return some(&self.here).or_else(below) };
        if rest.is_empty() {
            return below().or_else(|| if slash == Slash::Ignored { some(&self.here) } else { None });
        }
        // Byte by byte: segments are short, and a search of characters would cost more to begin than to do.
        let (segment, next) = match rest.bytes().position(|byte| byte == b'/') {
            Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
            None => (rest, None),
        };
        let literal = self.literals.binary_search_by(|(known, _)| (**known).cmp(segment)).ok();
        let literal = literal.and_then(|at| self.literals[at].1.find_rest(next, slash));
        let parameter = || self.parameter.as_ref().and_then(|node| node.find_rest(next, slash));
        literal.or_else(parameter).or_else(below)
    }
}

fn some(leaf: &Leaf) -> Option<&Leaf> {
    (!leaf.is_empty()).then_some(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(patterns: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for (index, pattern) in patterns.iter().enumerate() {
            tree.leaf(&pattern.parse().expect(pattern)).push(index);
        }
        tree
    }

    #[test]
    fn a_literal_comes_before_a_parameter_before_all_below() {
        let patterns = ["/*", "/a/*", "/a/b", "/a/{x}", "/a/{x}/c", "/a/b/*", "/{y}/z"];
        let tree = tree(&patterns);
        for (path, pattern) in [
            ("/", "/*"),
            ("/x", "/*"),
            ("/a", "/a/*"),
            ("/a/", "/a/*"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/*"),
            ("/a/b/c", "/a/b/*"),
            ("/a/q", "/a/{x}"),
            ("/a/q/c", "/a/{x}/c"),
            ("/a/q/d", "/a/*"),
            ("/a/z", "/a/{x}"),
            ("/q/z", "/{y}/z"),
            ("/q/z/", "/{y}/z"),
            ("/q/z/x", "/*"),
            ("/ab", "/*"),
        ] {
            assert_eq!(tree.find(path, Slash::Ignored).map(|leaf| patterns[leaf[0]]), Some(pattern), "{path}");
        }
        assert!(
            super::tests::tree(&["/a/{x}", "/b"]).find("/a/", Slash::Ignored).is_none(),
            "a parameter is not empty"
        );
        assert!(super::tests::tree(&["/a"]).find("/a/", Slash::Ignored).is_some());
        assert!(super::tests::tree(&["/a"]).find("/a/", Slash::Counts).is_none());
        assert!(super::tests::tree(&["/a"]).find("/a/b", Slash::Ignored).is_none());
    }

    /// Whether a pattern matches, said as plainly as can be.
    fn matches(pattern: &Pattern, path: &str) -> bool {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        let parts: Vec<&str> = if path == "/" { vec![] } else { path[1..].split('/').collect() };
        let segments = pattern.segments();
        let fits = segments.len() == parts.len() || (pattern.and_below() && segments.len() < parts.len());
        fits && segments.iter().zip(&parts).all(|(segment, part)| match segment {
            Segment::Literal(text) => **text == **part,
            Segment::Parameter(_) => !part.is_empty(),
        })
    }

    proptest! {
        #[test]
        fn what_is_found_matches_and_nothing_that_matches_is_missed(
            patterns in proptest::collection::vec("(/([ab]|\\{x\\})){0,1}(/([ab]|\\{y\\})){0,1}(/[ab]){0,1}(/\\*)?", 1..8),
            path in "(/[abc]){0,4}/?",
        ) {
            let patterns: Vec<String> = patterns.into_iter().map(|p| if p.is_empty() { "/".into() } else { p }).collect();
            let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let parsed: Vec<Pattern> = texts.iter().map(|text| text.parse().expect("a pattern")).collect();
            match tree(&texts).find(&path, Slash::Ignored) {
                Some(leaf) => for index in leaf { prop_assert!(matches(&parsed[*index], &path)); },
                None => prop_assert!(!parsed.iter().any(|pattern| matches(pattern, &path))),
            }
        }
    }
}
