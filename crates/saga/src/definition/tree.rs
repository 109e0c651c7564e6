//! YAML as a tree of values that know their place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

/// A line and a column, from 1; 0 where there is no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) tree: Tree,
}

#[derive(Debug)]
pub(super) enum Tree {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<Field>),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    /// Where the name is.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Reads one YAML document.
pub(super) fn read(yaml: &str) -> Result<Node, serde_saphyr::Error> {
    serde_saphyr::from_str::<Spanned<Tree>>(yaml).map(Node::from)
}

impl From<Spanned<Tree>> for Node {
    fn from(spanned: Spanned<Tree>) -> Self {
        Self { place: spanned.referenced.into(), tree: spanned.value }
    }
}

impl Node {
    /// The value without its places.
    pub(super) fn to_value(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::Sequence(items) => items.iter().map(Self::to_value).collect(),
            Tree::Mapping(fields) => {
                Value::Object(fields.iter().map(|field| (field.name.clone(), field.node.to_value())).collect())
            }
        }
    }

    /// The node at the end of `path`, or as near to it as there is one.
    pub(super) fn nearest(&self, path: &[String]) -> &Self {
        let Some((first, rest)) = path.split_first() else { return self };
        let child = match &self.tree {
            Tree::Scalar(_) => None,
            Tree::Sequence(items) => first.parse::<usize>().ok().and_then(|index| items.get(index)),
            Tree::Mapping(fields) => fields.iter().find(|field| field.name == *first).map(|field| &field.node),
        };
        child.map_or(self, |child| child.nearest(rest))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Tree>>()? {
            items.push(item.into());
        }
        Ok(Tree::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, node)) = map.next_entry::<Spanned<String>, Spanned<Tree>>()? {
            fields.push(Field { name: name.value, place: name.referenced.into(), node: node.into() });
        }
        Ok(Tree::Mapping(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_value_knows_its_place() {
        let root = read("a: 1\nb:\n  - x\n  - {c: true}\n").expect("valid");
        let place = |path: &[&str]| {
            let path: Vec<String> = path.iter().map(ToString::to_string).collect();
            root.nearest(&path).place
        };
        assert_eq!(place(&["a"]), Place { line: 1, column: 4 });
        assert_eq!(place(&["b", "0"]), Place { line: 3, column: 5 });
        assert_eq!(place(&["b", "1", "c"]), Place { line: 4, column: 9 });
        assert_eq!(root.to_value(), serde_json::json!({"a": 1, "b": ["x", {"c": true}]}));
    }
}
