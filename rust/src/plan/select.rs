//! Which route a key takes: the longest prefix wins.

use super::compile::Route;

/// The routes of one listener.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// Longest prefix first; the catch-all, if any, is last.
    routes: Vec<Route>,
    any_case: bool,
    catch_all: Option<usize>,
}

impl RouteTable {
    /// Sort the routes; an error names a prefix that is there twice.
    pub fn new(mut routes: Vec<Route>, any_case: bool) -> Result<Self, String> {
        routes.sort_by(|a, b| b.prefix.len().cmp(&a.prefix.len()).then_with(|| a.prefix.cmp(&b.prefix)));
        if let Some(pair) = routes.windows(2).find(|pair| pair[0].prefix == pair[1].prefix) {
            return Err(format!("the prefix \"{}\" is there twice", pair[0].prefix.escape_ascii()));
        }
        let catch_all = routes.iter().position(|r| r.prefix.is_empty());
        Ok(Self { routes, any_case, catch_all })
    }

    /// One route for all keys.
    pub fn catching_all(route: Route) -> Self {
        Self { routes: vec![route], any_case: false, catch_all: Some(0) }
    }

    /// Send every write to its route's cluster alone.
    pub fn forget_mirrors(&mut self) {
        self.routes.iter_mut().for_each(|route| route.mirrors.clear());
    }

    /// The route of a key; `None`: no prefix matches and there is no catch-all.
    #[inline]
    pub fn select(&self, key: &[u8]) -> Option<usize> {
        if self.routes.len() == 1 && self.catch_all.is_some() {
            return self.catch_all;
        }
        self.routes.iter().position(|route| self.matches(route, key))
    }

    /// The route of commands without keys.
    #[inline]
    pub fn catch_all(&self) -> Option<usize> {
        self.catch_all
    }

    /// Whether every key takes the same route, so that keys need not be looked at.
    #[inline]
    pub fn is_single(&self) -> bool {
        self.routes.len() == 1 && self.catch_all.is_some()
    }

    /// All routes, longest prefix first.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Whether prefixes match in any case.
    pub fn any_case(&self) -> bool {
        self.any_case
    }

    /// Route `i`.
    pub fn get(&self, i: usize) -> Option<&Route> {
        self.routes.get(i)
    }

    fn matches(&self, route: &Route, key: &[u8]) -> bool {
        match key.get(..route.prefix.len()) {
            None => false,
            Some(head) if self.any_case => head.eq_ignore_ascii_case(&route.prefix),
            Some(head) => head == route.prefix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(prefixes: &[&str], any_case: bool) -> Result<RouteTable, String> {
        let route = |p: &&str| Route {
            prefix: p.as_bytes().to_vec(),
            remove_prefix: false,
            cluster: 0,
            mirrors: Vec::new(),
            samples: 0,
        };
        RouteTable::new(prefixes.iter().map(route).collect(), any_case)
    }

    fn chosen(table: &RouteTable, key: &str) -> Option<String> {
        let route = table.get(table.select(key.as_bytes())?)?;
        Some(String::from_utf8_lossy(&route.prefix).into_owned())
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = table(&["a", "abc", "", "ab"], false).expect("valid");
        for (key, prefix) in [("abcd", "abc"), ("abd", "ab"), ("ax", "a"), ("x", ""), ("", "")] {
            assert_eq!(chosen(&table, key).as_deref(), Some(prefix), "{key}");
        }
    }

    #[test]
    fn without_a_catch_all_a_key_may_have_no_route() {
        let table = table(&["departments", "employees"], false).expect("valid");
        assert_eq!(chosen(&table, "departments:1").as_deref(), Some("departments"));
        assert_eq!(chosen(&table, "other"), None);
        assert_eq!(table.catch_all(), None);
    }

    #[test]
    fn prefixes_may_match_in_any_case() {
        assert_eq!(chosen(&table(&["ab"], true).expect("valid"), "ABc").as_deref(), Some("ab"));
        assert_eq!(chosen(&table(&["ab"], false).expect("valid"), "ABc"), None);
    }

    #[test]
    fn a_prefix_may_be_there_once() {
        assert!(table(&["a", "a"], false).expect_err("twice").contains("\"a\""));
    }
}
