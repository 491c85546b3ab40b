// Lists the trained runs that the server knows.
async function listRuns(list) {
  const answer = await fetch("/api/runs");
  for (const run of await answer.json()) {
    const item = document.createElement("li");
    item.textContent = `${run.id}: ${run.model}, ${run.labels.length} classes`;
    list.append(item);
  }
}

listRuns(document.getElementById("runs"));
