//! Which parts of a line are wanted: a tree of keys whose leaves are numbered slots.
//!
//! A line is walked once, and at each key of an object the tree says whether anything below it is wanted. Lines of one
//! producer have their keys in one order, so the key of member *k* is guessed from the line before: where the bytes are
//! the same it is not even scanned.

use std::collections::HashMap;

/// Members of an object whose order is remembered.
const GUESSES: usize = 512;

/// An unknown key is the client's text: it is compared next time, but a long one is not kept.
const LONGEST_KEY: usize = 128;

/// A node of the tree.
pub(super) type NodeId = usize;

/// The tree, with its root at 0.
pub(super) struct Paths {
    nodes: Vec<Node>,
    slots: usize,
}

#[derive(Default)]
struct Node {
    slot: Option<usize>,
    /// The list whose elements are wanted.
    list: Option<usize>,
    children: HashMap<Box<str>, NodeId>,
    /// Slots and lists of all below.
    slots_below: Vec<usize>,
    lists_below: Vec<usize>,
    guesses: Vec<Guess>,
}

/// What member *k* of the last object was.
#[derive(Clone, Default)]
struct Guess {
    /// The key as it stands in the line: in quotes, with a colon.
    text: Vec<u8>,
    child: Option<NodeId>,
}

impl Paths {
    pub fn new() -> Paths {
        Paths {
            nodes: vec![Node::default()],
            slots: 0,
        }
    }

    /// The slot of what stands at the end of a path.
    pub fn slot(&mut self, path: &[String]) -> usize {
        let node = self.node(path);
        if let Some(slot) = self.nodes[node].slot {
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        self.nodes[node].slot = Some(slot);
        self.each_above(path, |above| above.slots_below.push(slot));
        slot
    }

    /// The list whose elements stand at the end of a path, which is `next` unless it has been asked for before.
    pub fn list(&mut self, path: &[String], next: usize) -> usize {
        let node = self.node(path);
        if let Some(list) = self.nodes[node].list {
            return list;
        }
        self.nodes[node].list = Some(next);
        self.each_above(path, |above| above.lists_below.push(next));
        next
    }

    fn node(&mut self, path: &[String]) -> NodeId {
        let mut at = 0;
        for key in path {
            at = match self.nodes[at].children.get(key.as_str()) {
                Some(child) => *child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[at].children.insert(key.as_str().into(), child);
                    child
                }
            };
        }
        at
    }

    fn each_above(&mut self, path: &[String], mut note: impl FnMut(&mut Node)) {
        let mut at = 0;
        for key in path {
            note(&mut self.nodes[at]);
            at = self.nodes[at].children[key.as_str()];
        }
    }

    /// Slots there are.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The slot of a node.
    pub fn slot_of(&self, node: NodeId) -> Option<usize> {
        self.nodes[node].slot
    }

    /// The list of a node.
    pub fn list_of(&self, node: NodeId) -> Option<usize> {
        self.nodes[node].list
    }

    /// Whether anything below a node is wanted.
    pub fn has_children(&self, node: NodeId) -> bool {
        !self.nodes[node].children.is_empty()
    }

    /// What is below a node: slots and lists.
    pub fn below(&self, node: NodeId) -> (&[usize], &[usize]) {
        let node = &self.nodes[node];
        (&node.slots_below, &node.lists_below)
    }

    /// Where member `position` has the key of the object before: how many bytes it takes with quotes and colon, and the
    /// node it leads to.
    #[inline]
    pub fn guessed(&self, node: NodeId, position: usize, text: &[u8]) -> Option<(usize, Option<NodeId>)> {
        let guess = self.nodes[node].guesses.get(position)?;
        let same = !guess.text.is_empty() && text.starts_with(&guess.text);
        same.then_some((guess.text.len(), guess.child))
    }

    /// The node below `node` that the key of its member `position` leads to. `written` is the key in the line, if the
    /// next one may be compared with it.
    pub fn child(
        &mut self,
        node: NodeId,
        position: usize,
        key: &str,
        written: Option<&[u8]>,
    ) -> Option<NodeId> {
        let node = &mut self.nodes[node];
        let child = node.children.get(key).copied();
        let written = written.filter(|text| position < GUESSES && text.len() <= LONGEST_KEY);
        if let Some(text) = written {
            if node.guesses.len() <= position {
                node.guesses.resize(position + 1, Guess::default());
            }
            let guess = &mut node.guesses[position];
            guess.text.clear();
            guess.text.extend_from_slice(text);
            guess.child = child;
        }
        child
    }
}
