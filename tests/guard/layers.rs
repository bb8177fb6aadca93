//! The layers of the code: a module imports from the floors below its own, as the table in lib.rs has them, and no files
//! import each other in a circle. Test modules may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module, by the segments of its path. The crate's root has none.
type Module = Vec<String>;

/// The modules of a crate, and those that each of them names.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Reads the modules of the crate whose sources are in this folder.
fn imports(folder: &str) -> Imports {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut texts = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let module = module_of(path.strip_prefix(&root).unwrap());
                if module.last().is_none_or(|last| last != "tests") {
                    texts.insert(module, code(&fs::read_to_string(path).unwrap()));
                }
            }
        }
    }
    let find = |path: &[String]| {
        let lengths = (0..=path.len()).rev();
        let mut prefixes = lengths.map(|length| &path[..length]);
        prefixes
            .find(|prefix| texts.contains_key(*prefix))
            .map(<[String]>::to_vec)
    };
    let all = texts.iter().map(|(module, text)| {
        let named = paths(text, module)
            .into_iter()
            .filter_map(|path| find(&path));
        let others = named.filter(|named| named != module && !named.is_empty());
        (module.clone(), others.collect())
    });
    all.filter(|(module, _): &(Module, _)| !module.is_empty())
        .collect()
}

fn module_of(file: &Path) -> Module {
    let file = file.with_extension("");
    let parts = file.iter().map(|part| part.to_str().unwrap().to_owned());
    parts
        .filter(|part| part != "lib" && part != "main")
        .collect()
}

/// The code of a file without its comments and its tests.
fn code(text: &str) -> String {
    let end = text
        .find("#[cfg(test)]\nmod tests")
        .or(text.find("#[cfg(test)]\npub(crate) mod tests"));
    let lines = text[..end.unwrap_or(text.len())].lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The paths that begin with `crate`, `super` or `self`, those of `use`, and those that begin with a child of the module.
fn paths(text: &str, module: &Module) -> Vec<Module> {
    let parent = module[..module.len().saturating_sub(1)].to_vec();
    let mut starts = vec![
        ("crate::".to_owned(), Vec::new()),
        ("super::".to_owned(), parent),
        ("self::".to_owned(), module.clone()),
        ("use ".to_owned(), module.clone()),
    ];
    for line in text.lines() {
        let declared = line
            .split_once("mod ")
            .and_then(|(_, name)| name.strip_suffix(';'));
        if let Some(child) = declared {
            starts.push((
                format!("{child}::"),
                [&module[..], &[child.to_owned()]].concat(),
            ));
        }
    }
    let mut found = Vec::new();
    for (start, base) in starts {
        for (at, _) in text.match_indices(&start) {
            let before = &text[..at];
            let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
            // The word `use` in a text is not an import.
            let begins = start != "use " || line.is_empty() || line.starts_with("pub");
            let before = before.chars().next_back();
            if begins
                && before.is_none_or(|sign| !sign.is_alphanumeric() && sign != '_' && sign != ':')
            {
                tree(&text[at + start.len()..], base.clone(), &mut found);
            }
        }
    }
    found
}

/// Adds the paths of a tree such as `a::{b, c::d}`. What follows the tree.
fn tree<'a>(text: &'a str, mut prefix: Module, found: &mut Vec<Module>) -> &'a str {
    let mut rest = text;
    loop {
        if let Some(mut list) = rest.strip_prefix('{') {
            while !list.trim_start().is_empty() && !list.trim_start().starts_with('}') {
                let rest = tree(list.trim_start(), prefix.clone(), found);
                // A comma, or the asterisk of a glob and the comma.
                let rest = rest.trim_start_matches(['*', ',']);
                // What is not a tree, as in a text, must not go on for ever.
                if rest.len() == list.len() {
                    return rest;
                }
                list = rest;
            }
            let list = list.trim_start();
            return list.strip_prefix('}').unwrap_or(list);
        }
        let end = rest.find(|sign: char| !sign.is_alphanumeric() && sign != '_');
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        match name {
            "super" => drop(prefix.pop()),
            "self" => {}
            name => prefix.push(name.to_owned()),
        }
        match after.strip_prefix("::") {
            Some(next) => rest = next,
            None => {
                found.push(prefix);
                return after;
            }
        }
    }
}

/// The rows of the table of floors in lib.rs, the top one first.
fn floors() -> Vec<Vec<String>> {
    let lib = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let lib = fs::read_to_string(lib).unwrap();
    let table = lib.split("| floor |").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("//! |"));
    let modules = |row: &str| {
        let names = row.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect()
    };
    rows.map(modules).collect()
}

#[test]
fn a_module_imports_from_the_floors_below_its_own() {
    let floors = floors();
    let floor_of = |module: &str| {
        let floor = floors
            .iter()
            .position(|row| row.iter().any(|name| name == module));
        floor.unwrap_or_else(|| panic!("the table of floors in lib.rs lacks {module}"))
    };
    let mut upward = Vec::new();
    for (module, imported) in imports("src") {
        if module[0] == "bin" {
            continue;
        }
        for other in imported.iter().filter(|other| other[0] != module[0]) {
            if floor_of(&other[0]) <= floor_of(&module[0]) {
                upward.push(format!(
                    "{} imports {}",
                    module.join("::"),
                    other.join("::")
                ));
            }
        }
    }
    assert!(upward.is_empty(), "not from below:\n{}", upward.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for folder in ["src", "cli/src", "sim/src", "disk/src"] {
        let mut left = imports(folder);
        assert!(left.len() > 5, "{folder}: {left:?}");
        // Takes away whatever imports nothing that is left. A circle stays.
        loop {
            let names: BTreeSet<Module> = left.keys().cloned().collect();
            left.retain(|_, imported| !imported.is_disjoint(&names));
            if left.len() == names.len() {
                break;
            }
        }
        let ties = left.iter().flat_map(|(module, imported)| {
            let circle = imported.iter().filter(|other| left.contains_key(*other));
            circle.map(|other| format!("{} imports {}", module.join("::"), other.join("::")))
        });
        let ties: Vec<String> = ties.collect();
        assert!(
            ties.is_empty(),
            "{folder} has a circle among:\n{}",
            ties.join("\n")
        );
    }
}

#[test]
fn the_test_of_layers_reads_paths_as_the_compiler_does() {
    let module: Module = ["a", "b"].map(str::to_owned).to_vec();
    let text = "use super::{c::D, e};\nuse crate::f::{self, g::{H, I}};\nlet x = crate::j::k(super::super::l);\nmod m;\nlet y = m::n();";
    let paths: BTreeSet<String> = paths(text, &module)
        .iter()
        .map(|path| path.join("::"))
        .collect();
    for expected in [
        "a::c::D",
        "a::e",
        "f",
        "f::g::H",
        "f::g::I",
        "j::k",
        "l",
        "a::b::m::n",
    ] {
        assert!(paths.contains(expected), "{expected} of {paths:?}");
    }
}
