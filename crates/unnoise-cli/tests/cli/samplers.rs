//! `samplers`, `explain` and `compare`.

use unnoise::core::SAMPLERS;

use crate::{Scratch, fixture};

#[test]
fn every_sampler_is_listed_and_explained() {
    let here = Scratch::new();
    let table = here.succeed("samplers");
    let rows = here.json("samplers");
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), SAMPLERS.len());
    for (row, info) in rows.iter().zip(SAMPLERS) {
        assert_eq!(row["name"], info.name);
        assert!(table.lines().any(|line| line.split_whitespace().next() == Some(info.name)), "{}", info.name);
        let reference = row["reference"].as_str().unwrap();
        assert!(reference.chars().any(|c| c.is_ascii_digit()) && reference.len() < 200, "{}: {reference}", info.name);
        let text = here.succeed(&format!("explain {}", info.name));
        assert!(text.contains("# Reference") && text.contains(&format!("order {}", info.order)), "{text}");
    }
    assert!(here.refused("explain dimm").contains("unknown sampler 'dimm'; known: ddpm, ddim"));
}

/// Whatever a budget pays for: steps of those that have some, a tolerance of adaptive ones, nothing of costlier ones.
#[test]
fn budgets_are_kept() {
    let here = Scratch::new();
    let model = fixture("tiny");
    let compare = format!("compare --model {model} --n 1 --reference-steps 2");
    let summary = here.json(&format!("{compare} --samplers heun,rk45,langevin --evaluations 3,60,1200 --grid trailing --out c"));
    let runs = summary["runs"].as_array().unwrap();
    let of = |name: &str| runs.iter().filter(|run| run["sampler"] == name).collect::<Vec<_>>();
    for run in runs {
        assert!(run["evaluations"].as_f64() <= run["budget"].as_f64(), "{run}");
    }
    assert_eq!(of("heun").iter().map(|run| run["steps"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 30, 600]);
    let tolerances: Vec<f64> = of("rk45").iter().map(|run| run["tolerance"].as_f64().unwrap()).collect();
    assert!(tolerances.len() == 2 && tolerances[1] < tolerances[0], "{tolerances:?}");
    assert!(
        here.refused(&format!("{compare} --samplers langevin --evaluations 6 --out d"))
            .contains("the evaluations must be as many as one of the samplers needs, got [6]")
    );
    assert!(here.refused(&format!("{compare} --grid times:1,0.5 --out d")).contains("one of any number of steps"));
    assert!(here.refused(&format!("{compare} --grid leading --out d")).contains("one that starts where the reference does"));
}

/// Of a few steps the deterministic samplers' distance falls with their number; a stochastic one has none.
#[test]
fn compare_measures_what_steps_are_worth() {
    let here = Scratch::new();
    let line = "compare --samplers euler,dpmpp-2m,ddpm --evaluations 4,12 --n 2 --reference-steps 20 --out c";
    let summary = here.json(line);
    let table = std::fs::read_to_string(here.path("c/distances.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["sampler", "budget", "steps", "tolerance", "evaluations", "distance"]);
    assert_eq!(rows.len(), 7);
    let distance = |row: usize| rows[row][5].parse::<f64>().unwrap();
    assert!(distance(2) < 0.6 * distance(1) && distance(4) < 0.6 * distance(3) && distance(4) < distance(2), "{table}");
    assert!(rows[5][0] == "ddpm" && rows[5][5].is_empty(), "{table}");
    assert_eq!(summary["runs"].as_array().unwrap().len(), 6);
    assert!(std::fs::read(here.path("c/sheet.png")).unwrap().starts_with(b"\x89PNG"));

    assert!(here.refused(line).contains("c"), "an earlier result is kept");
    assert!(here.refused("compare --samplers plmss --out d").contains("unknown sampler 'plmss'"));
    assert!(here.refused("compare --evaluations 0 --out d").contains("the evaluations must be from 1 to 10000, got 0"));
    // Before the reference, which would take hours.
    let costly = "compare --evaluations 5 --n 1024 --reference-steps 1000 --out d --samplers";
    assert!(here.refused(&format!("{costly} ddim,ddim-inverse")).contains("ddim-inverse"));
    assert!(here.refused("compare --grid cubic --out d").contains("unknown grid 'cubic'"));
    assert!(!here.path("d").exists());
}
