//! Which points a sink gets: patterns over devices and points, map entries, system points.

use std::collections::{BTreeSet, HashMap, HashSet};

use busbar_core::model::{Route, SystemRoute};
use serde_json::Value as Json;

use crate::{
    device::Made,
    map::{Maker, Mapped, Target},
    pattern::Pattern,
    sink::OneSink,
    source::Pos,
    system,
};

impl OneSink<'_, '_, '_> {
    /// The patterns of `points`, each with its place; everything where there are none.
    pub(crate) fn patterns(&self) -> (Vec<(Pattern, Pos)>, Vec<String>) {
        let cx = self.builder.cx;
        let path = self.path.key("points");
        let Some(node) = self.table.get("points") else {
            let all = Pattern::new("*").ok().map(|pattern| (pattern, self.node.pos));
            return (all.into_iter().collect(), vec!["*".into()]);
        };
        let mut patterns = Vec::new();
        let mut texts = Vec::new();
        for item in node.as_array().unwrap_or(std::slice::from_ref(node)) {
            let Some(text) = cx.text(&path, item) else { continue };
            match Pattern::new(&text) {
                Ok(pattern) => patterns.push((pattern, item.pos)),
                Err(error) => {
                    cx.problems.error(Some(item.pos), path, "a pattern over device/point", error);
                }
            }
            texts.push(text.into_owned());
        }
        (patterns, texts)
    }

    /// The points that the patterns mean, in the order of the site.
    pub(crate) fn routed(&self, patterns: &[(Pattern, Pos)]) -> Vec<(usize, usize)> {
        let mut used = vec![false; patterns.len()];
        let mut routed = Vec::new();
        for (device, made) in self.builder.devices.iter().enumerate() {
            let here: Vec<(usize, &Pattern)> = patterns
                .iter()
                .enumerate()
                .filter(|(_, (pattern, _))| pattern.matches_device(&made.model.name))
                .map(|(at, (pattern, _))| (at, pattern))
                .collect();
            if here.is_empty() {
                continue;
            }
            for (point, model) in made.model.points.iter().enumerate() {
                let mut hit = false;
                for (at, pattern) in &here {
                    if pattern.matches_point(&model.name) {
                        hit = true;
                        if let Some(used) = used.get_mut(*at) {
                            *used = true;
                        }
                    }
                }
                if hit {
                    routed.push((device, point));
                }
            }
        }
        // The default pattern of a site without points is nobody's mistake.
        if self.table.get("points").is_some() {
            let unused =
                patterns.iter().zip(&used).filter(|((pattern, _), used)| !**used && !pattern.is_system());
            unused.for_each(|((pattern, pos), _)| self.unused(pattern, *pos));
        }
        routed
    }

    fn unused(&self, pattern: &Pattern, pos: Pos) {
        let path = self.path.key("points");
        let problems = &self.builder.cx.problems;
        let found = "a pattern that matches none";
        if let Some((device, point)) = pattern.exact() {
            let help = self.builder.index.point(&format!("{device}/{point}")).err().unwrap_or_default();
            problems.error(Some(pos), path, "an existing point", format!("\"{device}/{point}\"")).help(help);
        } else if let Some(device) = pattern.exact_device()
            && self.builder.index.device(device).is_none()
        {
            let help = self.builder.index.no_device(device);
            problems.error(Some(pos), path, "points of an existing device", format!("{device:?}")).help(help);
        } else {
            problems.warning(Some(pos), path, "points", found);
        }
    }

    /// An entry for a point that `points` leaves out would be lost silently.
    pub(crate) fn outside(&self, maker: &Maker<'_, '_>, mapped: &[Mapped], routed: &[(usize, usize)]) {
        let routed: HashSet<(usize, usize)> = routed.iter().copied().collect();
        for entry in mapped {
            let inside = match &entry.target {
                Target::Point(device, point) => routed.contains(&(*device, *point)),
                Target::Device(device) => routed.iter().any(|(routed, _)| routed == device),
                Target::System(_) | Target::Sink => true,
            };
            if !inside {
                let found = format!("{:?}", maker.name(&entry.target));
                self.builder
                    .cx
                    .problems
                    .error(
                        Some(entry.node.pos),
                        entry.key.as_str(),
                        "something that `points` of this sink matches",
                        found,
                    )
                    .help("add it to points, or remove the entry");
            }
        }
    }

    pub(crate) fn system(
        &self,
        patterns: &[(Pattern, Pos)],
        routes: &[Route],
        mapped: &[Mapped],
        needs_map: bool,
    ) -> Vec<SystemRoute> {
        let devices = self.builder.devices;
        let mut names: Vec<String> = Vec::new();
        if !needs_map {
            let routed: BTreeSet<usize> = routes.iter().map(|route| route.device).collect();
            let online = routed
                .iter()
                .filter_map(|at| devices.get(*at))
                .map(|made| format!("{}/@online", made.model.name));
            names.extend(online);
        }
        for (pattern, pos) in patterns.iter().filter(|(pattern, _)| pattern.is_system()) {
            let all = system::all(devices.iter().map(|made| made.model.name.as_str()), self.builder.names);
            let before = names.len();
            let mut any = false;
            for (owner, point) in all.filter(|(owner, point)| pattern.matches_system(owner, point)) {
                any = true;
                names.push(format!("{owner}/{point}"));
            }
            if !any && before == names.len() {
                let help = pattern.exact().map(|(owner, point)| {
                    let is_device = |name: &str| self.builder.index.device(name).is_some();
                    system::check(&format!("{owner}/{point}"), is_device, self.builder.names)
                        .err()
                        .unwrap_or_default()
                });
                self.builder
                    .cx
                    .problems
                    .error(
                        Some(*pos),
                        self.path.key("points"),
                        "a system point",
                        "a pattern that matches none",
                    )
                    .help(help.unwrap_or_default());
            }
        }
        names.extend(mapped.iter().filter_map(|entry| match &entry.target {
            Target::System(name) => Some(name.clone()),
            _ => None,
        }));
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
            .into_iter()
            .map(|name| {
                let of = |entry: &&Mapped| entry.target == Target::System(name.clone());
                let map = mapped.iter().filter(of).map(|entry| entry.json.clone()).collect();
                SystemRoute { name, map }
            })
            .collect()
    }
}

/// Routes in the order of the site; entries of a device go to all its points.
pub(crate) fn routes(
    devices: &[Made],
    routed: &[(usize, usize)],
    mapped: &[Mapped],
    needs_map: bool,
) -> Vec<Route> {
    let mut by_target: HashMap<&Target, Vec<&Json>> = HashMap::new();
    for entry in mapped {
        by_target.entry(&entry.target).or_default().push(&entry.json);
    }
    let entries = |target: Target| by_target.get(&target).into_iter().flatten().map(|json| (*json).clone());
    routed
        .iter()
        .filter(|(device, _)| *device < devices.len())
        .map(|(device, point)| Route {
            device: *device,
            point: *point,
            map: entries(Target::Point(*device, *point)).chain(entries(Target::Device(*device))).collect(),
        })
        .filter(|route| !needs_map || !route.map.is_empty())
        .collect()
}
