//! `~`, `~user` and variables inside a path, as Python's `os.path` expands them.
//!
//! Source: `expanduser` and `expandvars` of Python's posixpath and ntpath. What is unknown stays as
//! it is.

#[cfg(unix)]
pub(super) mod posix {
    //! `~`, `~user`, `$NAME` and `${NAME}`, in bytes.

    /// Replaces `~` at the beginning by `home`, or `~user` by what `users` knows.
    pub(in super::super) fn user(
        path: &[u8],
        home: Option<Vec<u8>>,
        users: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Vec<u8> {
        let Some(after) = path.strip_prefix(b"~") else { return path.to_vec() };
        let end = after.iter().position(|&byte| byte == b'/').unwrap_or(after.len());
        let home = if end == 0 { home } else { users(&after[..end]) };
        let Some(mut expanded) = home else { return path.to_vec() };
        while expanded.last() == Some(&b'/') {
            expanded.pop();
        }
        expanded.extend_from_slice(&after[end..]);
        if expanded.is_empty() { b"/".to_vec() } else { expanded }
    }

    /// Replaces variables that are set; what they hold is not expanded again.
    pub(in super::super) fn variables(
        path: &[u8],
        get: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Vec<u8> {
        let mut expanded = Vec::with_capacity(path.len());
        let mut rest = path;
        while let Some(at) = rest.iter().position(|&byte| byte == b'$') {
            expanded.extend_from_slice(&rest[..at]);
            let after = &rest[at + 1..];
            let (name, len) = name(after);
            match get(name) {
                Some(value) if len > 0 => expanded.extend(value),
                _ => expanded.extend_from_slice(&rest[at..=at + len]),
            }
            rest = &after[len..];
        }
        expanded.extend_from_slice(rest);
        expanded
    }

    /// The name after a `$`, and how many bytes it takes with its braces; 0 if there is none.
    fn name(after: &[u8]) -> (&[u8], usize) {
        if let Some(braced) = after.strip_prefix(b"{")
            && let Some(end) = braced.iter().position(|&byte| byte == b'}')
        {
            return (&braced[..end], end + 2);
        }
        let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let len = after.iter().take_while(|byte| is_of_word(byte)).count();
        (&after[..len], len)
    }
}

#[cfg(any(windows, test))]
pub(super) mod windows {
    //! `~`, `~user`, `%NAME%`, `$NAME` and `${NAME}`; nothing between single quotes.

    /// Replaces `~` at the beginning by the home directory that the variables say, or `~user` by
    /// its sibling.
    pub(in super::super) fn user(path: &str, get: impl Fn(&str) -> Option<String>) -> String {
        let Some(after) = path.strip_prefix('~') else { return path.to_owned() };
        let (user, rest) = after.split_at(after.find(['/', '\\']).unwrap_or(after.len()));
        let of_drive = || Some(get("HOMEDRIVE").unwrap_or_default() + &get("HOMEPATH")?);
        let Some(home) = get("USERPROFILE").or_else(of_drive) else { return path.to_owned() };
        let me = get("USERNAME");
        if user.is_empty() || me.as_deref() == Some(user) {
            return home + rest;
        }
        match home.rsplit_once(['/', '\\']) {
            Some((folder, last)) if me.as_deref() == Some(last) => {
                format!("{folder}\\{user}{rest}")
            }
            _ => path.to_owned(),
        }
    }

    /// Replaces variables that are set; what they hold is not expanded again.
    pub(in super::super) fn variables(path: &str, get: impl Fn(&str) -> Option<String>) -> String {
        let mut expanded = String::with_capacity(path.len());
        let mut rest = path;
        while let Some(at) = rest.find(['\'', '%', '$']) {
            expanded.push_str(&rest[..at]);
            let (len, value) = piece(&rest[at..], &get);
            expanded.push_str(value.as_deref().unwrap_or(&rest[at..at + len]));
            rest = &rest[at + len..];
        }
        expanded + rest
    }

    /// How long the quotation or the variable at the beginning of `text` is, and what stands for
    /// it, if anything.
    fn piece(text: &str, get: impl Fn(&str) -> Option<String>) -> (usize, Option<String>) {
        let after = &text[1..];
        let until = |end: char| after.find(end);
        match text.as_bytes()[0] {
            b'\'' => (until('\'').map_or(text.len(), |end| end + 2), None),
            sign if after.as_bytes().first() == Some(&sign) => (2, Some(after[..1].to_owned())),
            b'%' => match until('%') {
                Some(end) => (end + 2, get(&after[..end])),
                None => (text.len(), None),
            },
            _ if after.starts_with('{') => match until('}') {
                Some(end) => (end + 2, get(&after[1..end])),
                None => (text.len(), None),
            },
            _ => {
                let is_of_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
                let end = after.find(|c| !is_of_name(c)).unwrap_or(after.len());
                (end + 1, get(&after[..end]))
            }
        }
    }
}
