"""Lints the chart and renders its cases with Helm's own library: helm.py CHART CASES OUTPUT.

Each file of CASES is rendered to a folder of OUTPUT, a file a manifest. Each file of CASES/refused must be refused.
"""

import pathlib
import sys

import helm_python as helm
import yaml

chart_path, cases, output = map(pathlib.Path, sys.argv[1:4])
wrong = []


def tell(message):
    wrong.append(message)
    print(f"error: {message}")


with helm.Chart.load(chart_path) as chart:
    for case in sorted(cases.glob("*.yaml")):
        values = helm.values_from_yaml(case.read_text())
        report = helm.lint(chart_path, values, strict=True)
        for message in report["messages"]:
            if message["severity"] >= 2:
                tell(f"{case.name}: {message['path']}: {message['error']}")
        chart.validate_schema(values)
        rendered = chart.render(values, name="lake", namespace="data", is_install=True)
        folder = output / case.stem
        folder.mkdir(parents=True)
        count = 0
        for template, text in sorted(rendered.items()):
            if template.endswith(".txt"):
                continue
            for document in yaml.safe_load_all(text):
                if document is None:
                    continue
                count += 1
                name = f"{document['kind']}-{document['metadata']['name']}.yaml"
                (folder / name).write_text(yaml.safe_dump(document))
        print(f"{case.name}: {count} manifests")
    refused = sorted((cases / "refused").glob("*.yaml"))
    for case in refused:
        values = helm.values_from_yaml(case.read_text())
        try:
            chart.validate_schema(values)
            chart.render(values, name="lake", namespace="data", is_install=True)
        except helm.HelmError as error:
            print(f"refused/{case.name}: {str(error).splitlines()[-1].strip()}")
        else:
            tell(f"refused/{case.name} is not refused")
    if not refused:
        tell("there are no cases that must be refused")
sys.exit(1 if wrong else 0)
