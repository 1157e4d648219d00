//! The points of one device: the templates' and its own, merged by name.

use std::{collections::HashMap, rc::Rc};

use crate::{
    context::{MAX_BLOCKS_PER_DEVICE, MAX_POINTS, MAX_POINTS_PER_DEVICE},
    device::OneDevice,
    library::Template,
    point::unique,
    problem::{Path, did_you_mean},
    template::{self, Scope},
    tree::{Data, Node, Table},
};

impl OneDevice<'_, '_, '_> {
    /// Points and blocks of the templates and of the device itself, merged by name.
    pub(crate) fn points(
        &self,
        name: &str,
        own: &Table,
        templates: &[Rc<Template>],
    ) -> (Vec<Node>, Vec<Node>) {
        let cx = self.builder.cx;
        let path = self.path.key("points");
        let empty = Table::default();
        let vars = self.merged.table("vars").unwrap_or(&empty);
        let mut base = Vec::new();
        let mut blocks = Vec::new();
        for template in templates {
            let layers = [vars, &template.vars];
            let scope = Scope { device: name, vars: &layers, n: None, name: None };
            base.extend(template::points(cx, &path, &template.points, scope, template.repeat.as_ref()));
            blocks.extend(template::blocks(cx, &path, &template.blocks, scope, template.repeat.as_ref()));
        }
        let layers: Vec<&Table> = std::iter::once(vars).chain(templates.iter().map(|t| &t.vars)).collect();
        let scope = Scope { device: name, vars: &layers, n: None, name: None };
        let list = self.builder.library.list(cx, &self.path, own.get("points"), "points");
        let own_points = template::points(cx, &path, &list.items, scope, None);
        blocks.extend(template::blocks(cx, &path, &list.blocks, scope, None));
        if let Some(own_blocks) = own.get("blocks") {
            match own_blocks.as_array() {
                Some(items) => blocks.extend(template::blocks(cx, &path, items, scope, None)),
                None => {
                    let expected = "a list of tables";
                    cx.problems.error(
                        Some(own_blocks.pos),
                        self.path.key("blocks"),
                        expected,
                        cx.found(own_blocks),
                    );
                }
            }
        }
        let has_templates = !templates.is_empty();
        let merged =
            self.overlay(&path, unique(cx, &path, base), unique(cx, &path, own_points), has_templates);
        if blocks.len() > MAX_BLOCKS_PER_DEVICE {
            let expected = format!("at most {MAX_BLOCKS_PER_DEVICE} blocks in a device");
            cx.problems.error(
                Some(self.node.pos),
                self.path.key("blocks"),
                expected,
                blocks.len().to_string(),
            );
            blocks.clear();
        }
        let whole = merged.len();
        let merged = self.bounded(merged);
        if merged.len() < whole {
            blocks.clear();
        }
        (merged, blocks)
    }

    fn overlay(
        &self,
        path: &Path<'_>,
        base: Vec<(Rc<str>, Node)>,
        own: Vec<(Rc<str>, Node)>,
        has_templates: bool,
    ) -> Vec<Node> {
        let cx = self.builder.cx;
        let index: HashMap<Rc<str>, usize> =
            base.iter().enumerate().map(|(at, (name, _))| (Rc::clone(name), at)).collect();
        let mut nodes: Vec<Node> = base.into_iter().map(|(_, node)| node).collect();
        for (name, node) in own {
            let below = index.get(&name).and_then(|at| nodes.get_mut(*at));
            match (below, &node.data) {
                (Some(Node { data: Data::Table(below), .. }), Data::Table(table)) => {
                    below.overlay(table, &["labels"])
                }
                (_, Data::Table(table)) => {
                    if has_templates && table.get("address").is_none() && self.plugin.is_some() {
                        cx.problems
                            .error(
                                Some(node.pos),
                                path.named(&name),
                                "a point of the template, or an address",
                                format!("{:?}", &*name),
                            )
                            .help(did_you_mean(&name, index.keys().map(|key| &**key)));
                        continue;
                    }
                    nodes.push(node);
                }
                _ => {}
            }
        }
        nodes.retain(|node| {
            let enabled = node.as_table().and_then(|table| table.get("enabled")).and_then(Node::as_bool);
            enabled != Some(false)
        });
        nodes
    }

    /// Enforces [`MAX_POINTS_PER_DEVICE`] and [`MAX_POINTS`].
    fn bounded(&self, mut nodes: Vec<Node>) -> Vec<Node> {
        let cx = self.builder.cx;
        let left = MAX_POINTS.saturating_sub(cx.points.get());
        let limit = MAX_POINTS_PER_DEVICE.min(left);
        if nodes.len() > limit {
            let expected = if limit == MAX_POINTS_PER_DEVICE {
                format!("at most {MAX_POINTS_PER_DEVICE} points in a device")
            } else {
                format!("at most {MAX_POINTS} points in all")
            };
            cx.problems.error(Some(self.node.pos), self.path, expected, "more");
            nodes.truncate(limit);
        }
        cx.points.set(cx.points.get() + nodes.len());
        nodes
    }
}
