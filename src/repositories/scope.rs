//! The `scope` of a request to a token server, as the distribution project's specification has it:
//! `type[(class)]:name:action,…`, several of them with blanks between.

use std::collections::BTreeSet;

use super::name::is_name;

/// A client that mounts layers across repositories asks for a handful at once.
const MOST: usize = 64;

/// A scope that breaks the grammar, or more of them than a client can want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidScope;

/// A resource, and what somebody would do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `repository`, `registry` or what else there may be.
    pub kind: String,
    /// A kind of repository, as in `repository(plugin)`.
    pub class: Option<String>,
    /// The name.
    pub name: String,
    /// What would be done with it; `*` is all there is.
    pub actions: BTreeSet<String>,
}

impl Resource {
    fn is_the_same(&self, other: &Self) -> bool {
        (&self.kind, &self.class, &self.name) == (&other.kind, &other.class, &other.name)
    }
}

/// Reads the values of all `scope` parameters. What is asked for twice is there once, with all actions.
///
/// # Errors
/// [`InvalidScope`].
pub fn read_scopes<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<Resource>, InvalidScope> {
    let mut found: Vec<Resource> = Vec::new();
    for scope in values.into_iter().flat_map(|value| value.split(' ')).filter(|scope| !scope.is_empty()) {
        let resource = read(scope).ok_or(InvalidScope)?;
        match found.iter().position(|known| known.is_the_same(&resource)) {
            Some(at) => found[at].actions.extend(resource.actions),
            None if found.len() == MOST => return Err(InvalidScope),
            None => found.push(resource),
        }
    }
    Ok(found)
}

fn read(scope: &str) -> Option<Resource> {
    // A name may begin with a host and its port, so actions are what follows the last colon.
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let (kind, class) = match kind.split_once('(') {
        Some((kind, class)) => (kind, Some(class.strip_suffix(')')?)),
        None => (kind, None),
    };
    if !is_word(kind) || !class.is_none_or(is_word) || !is_name(name) {
        return None;
    }
    let actions = actions.split(',').filter(|action| !action.is_empty());
    let actions = actions.map(|action| (action == "*" || is_word(action)).then(|| action.to_owned()));
    let actions = actions.collect::<Option<BTreeSet<_>>>()?;
    Some(Resource { kind: kind.to_owned(), class: class.map(str::to_owned), name: name.to_owned(), actions })
}

fn is_word(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(values: &[&str]) -> Result<Vec<String>, InvalidScope> {
        let show = |resource: &Resource| {
            let class = resource.class.as_ref().map(|class| format!("({class})")).unwrap_or_default();
            let actions: Vec<&str> = resource.actions.iter().map(String::as_str).collect();
            format!("{}{class} {} {}", resource.kind, resource.name, actions.join("+"))
        };
        read_scopes(values.iter().copied()).map(|all| all.iter().map(show).collect())
    }

    #[test]
    fn scopes_are_read_in_every_way_they_come() {
        assert_eq!(shown(&["repository:samalba/my-app:pull,push"]).unwrap(), ["repository samalba/my-app pull+push"]);
        let two = ["repository a/b pull", "repository c pull+push"];
        assert_eq!(shown(&["repository:a/b:pull", "repository:c:push,pull"]).unwrap(), two);
        assert_eq!(shown(&["repository:a/b:pull repository:c:push,pull"]).unwrap(), two);
        assert_eq!(shown(&[" repository:a/b:pull  repository:c:push,pull "]).unwrap(), two);
        assert_eq!(shown(&["repository:c:push", "repository:c:pull,push"]).unwrap(), ["repository c pull+push"]);
        assert_eq!(shown(&["repository:localhost:5000/a:pull"]).unwrap(), ["repository localhost:5000/a pull"]);
        assert_eq!(shown(&["repository(plugin):a:pull"]).unwrap(), ["repository(plugin) a pull"]);
        assert_eq!(shown(&["registry:catalog:*"]).unwrap(), ["registry catalog *"]);
        // The grammar allows no action at all.
        assert_eq!(
            shown(&["repository:a:", "repository:b:pull,,push"]).unwrap(),
            ["repository a ", "repository b pull+push"]
        );
        assert_eq!(shown(&[]).unwrap(), [""; 0]);
        assert_eq!(shown(&["", "  "]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for bad in [
            "repository",
            "repository:a",
            ":a:pull",
            "repository::pull",
            "repository:A:pull",
            "repository:a/../b:pull",
            "repository:a:PULL",
            "repository:a:pull push",
            "repository:a:pull;push",
            "repository(:a:pull",
            "repository():a:pull",
            "repository(a)b:a:pull",
            "repository(a:a:pull",
            "Repository:a:pull",
            "repository:a:b:pull",
            "repository:a\tb:pull",
            "repository:ä:pull",
            "openid",
        ] {
            assert!(shown(&[bad]).is_err(), "{bad}");
            assert!(shown(&["repository:a:pull", bad]).is_err(), "{bad}");
        }
        let many = |count: usize| (0..count).map(|n| format!("repository:r{n}:pull")).collect::<Vec<_>>().join(" ");
        assert!(shown(&[&many(MOST)]).is_ok());
        assert!(shown(&[&many(MOST + 1)]).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_gives_names_only(
            text in "((repository|registry|x)?(\\([a-z]?\\))?[:/.a-zA-Z0-9_*,{} -]{0,24}|\\PC{0,12}){0,4}",
        ) {
            for resource in read_scopes([text.as_str()]).unwrap_or_default() {
                prop_assert!(is_name(&resource.name) && text.contains(&resource.name));
                prop_assert!(is_word(&resource.kind));
                prop_assert!(!resource.actions.contains(""));
            }
        }

        /// However scopes are spread over parameters, the same is asked for.
        #[test]
        fn parameters_and_blanks_mean_the_same(
            names in prop::collection::vec("(h[a-z.]{0,4}[a-z](:[0-9]{1,5})?/)?[a-z]{1,3}(/[a-z]{1,3})?", 1..6),
            actions in "(pull|push|delete|\\*)(,(pull|push))?",
        ) {
            let scopes: Vec<String> = names.iter().map(|name| format!("repository:{name}:{actions}")).collect();
            let all: Vec<&str> = scopes.iter().map(String::as_str).collect();
            if let Ok(read) = shown(&all) {
                prop_assert_eq!(shown(&[&scopes.join(" ")]), Ok(read.clone()));
                prop_assert_eq!(shown(&[&scopes.join("  "), &scopes[0]]), Ok(read));
            }
        }
    }
}
