// How search ranks what it finds. Sphinx gives a page the score of its best word alone, so that one
// word in a title counts as much as all of them: here each counts, and more in a short title.
var Scorer = {
  score: ([docname, title, , description, score]) => {
    if (description !== null) return score + 4; // a name of the API
    const stemmer = new Stemmer(), left_out = new Set(stopwords);
    const words = (text) => text.toLowerCase().split(/[^\p{L}\p{N}_]+/u)
      .filter((word) => word && !left_out.has(word)).map((word) => stemmer.stemWord(word));
    const asked = words(new URLSearchParams(window.location.search).get("q") ?? "");
    const told = words(title);
    const found = asked.filter((word) => told.includes(word)).length;
    const share = found ? 20 * found / asked.length + 10 * found / told.length : 0;
    // Of equal ones first what shows how, then what tells all, then what is for developers alone.
    const room = { tutorials: 2, gallery: 2, "how-to": 2, developers: 0 }[docname.split("/")[0]] ?? 1;
    return score + share + room;
  },
  // The rest as Sphinx has it.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
