r"""Signs that a text tells the labeler what to answer: the patterns behind ``suspicion``.

A sign has points: 4 for what has no business in a text to be labeled, 2 for what ordinary texts hold now and
then, 1 for what means nothing alone. Patterns are RE2's and see folded texts: lower case, no accents.
"""

from __future__ import annotations

from typing import NamedTuple

KINDS = {
    "command": "The text tells the labeler to drop its instructions, or which label to answer.",
    "turn": "The text pretends to be a turn of a conversation, by a speaker's name or a chat template's token.",
    "delimiter": "The text closes or opens the marks between which texts are sent.",
    "answer": "The text holds an answer in a format that programs read, such as JSON with a label.",
    "authority": "The text speaks in the name of the data's owner, or gives the labeler another role.",
    "language": "The text gives the labeler orders in a language other than English.",
    "encoding": "The orders are encoded, spelled backwards, or spelled with digits or gaps.",
    "invisible": "The orders are written in or between characters that nobody sees, or with look-alike letters.",
    "confidence": "The text says how sure the labeler has to be.",
    "examples": "The text holds worked examples with labels.",
    "leak": "The text asks for the instructions, the other texts or the key.",
}


class Sign(NamedTuple):
    """One pattern.

    ``kind``: a key of KINDS. ``group``: of the signs of one group only the best counts. ``points``: 1, 2 or 4.
    ``view``: "words", where all but letters and digits is a space, or "shape", the folded text as it is; with
    "named" before it, names of labels are marked, and texts that name none are not searched.
    ``pattern``: RE2's; in words a space is any gap and "~" up to five words; "#" is a label's name.
    """

    kind: str
    group: str
    points: int
    view: str
    pattern: str


_IGNORE = (
    r"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|overrule|bypass|discard|set aside|abandon|"
    r"(?:do not|don t|no longer|stop|cease) (?:follow|obey|apply|us|consider)[a-z]*|pay no attention to|"
    r"throw (?:out|away)|supersedes?|replaces?|cancels?)\b"
)
_ORDERS = r"(?:instructions?|prompts?|guidelines?|directives?|commands|system messages?)\b"
_RULES = (
    r"(?:rules|orders|directions|definitions|criteria|task|label set|schema|training|programming|guidance)\b"
)
_OLD = (
    r"(?:previous|prior|above|earlier|preceding|foregoing|initial|original|system|your|these|given|label\w*)"
)
_MODEL = (
    r"(?:llms?|(?:large )?language models?|(?:text )?classifiers?|label?lers?|annotators?|chatgpt|gpt|claude|gemini|"
    r"ai (?:model|system|assistant|classifier|labell?er|annotator|reader|agent)s?|label?ling \w+|graders?|raters?)"
)
_LABEL = (
    r"(?:label|class|category|answer|classification|annotation|verdict|output|intent|stance|prediction|tag)"
)
_TAKE = (
    r"\b(?:answer|respond|reply|return|output|choose|select|pick|print|predict|label|classify|tag|categori[sz]e|"
    r"annotate|mark|treat|assign|rate|emit|produce|declare|report)(?:s|es)?\b"
)
_KEY = rf"(?:{_LABEL}s?|sentiment|gold|result|bias|type)"
_PAIR = rf"""\b(?:{_KEY}|a)["'*_`) ]{{0,3}}\s*(?::|=|->|=>|→)+\s*["'`*_\[ ]{{0,3}}#"""
_ARROW = r"""(?:-+>|=+>|→|\|)\s*["'`*]*#"""
_SPEAKER = (
    r"(?:^|[\n.!?\"”\])}|>*])\s*[\[(*_<{]*(?:system|assistant|developer|human|ai|user|admin|model)"
    r"(?: (?:message|prompt|notice|note|override|update|alert|instruction)s?)?[\])*_>}]*\s*(?::|\])"
)
_FOREIGN_IGNORE = (
    # German, Dutch
    r"\b(?:ignorier\w*|vergiss|vergessen sie|missachte\w*|beachte nicht|negeer|vergeet)\b ~"
    r"(?:an?weisung\w*|instrukt\w*|vorgaben?|regeln|befehle?|anleitung\w*|instructies|regels|opdracht\w*|aanwijzing\w*)",
    # French, Spanish, Portuguese, Italian
    r"\b(?:ignor\w+|oubli\w+|ne tenez pas compte|ne tiens pas compte|olvid\w+|haz caso omiso|no sigas|esque[cç]\w*|"
    r"desconsider\w+|descart\w+|dimentica\w*|non seguire)\b ~"
    r"(?:instruc\w+|istruzion\w+|consignes?|regles?|reglas|regras|regole|directives?|indica\w+|indicazion\w+|ordenes|ordens)",
    # Russian, Ukrainian, Polish
    r"(?:игнорир|проигнорир|забуд|не обращай|ігнору|zignoruj|ignoruj|zapomnij|pomin)[^ ]* ~"
    r"(?:инструкц|указани|правил|команд|інструкц|вказівк|instrukcj|polecen|zasad|wytyczn)",
    # Turkish, Indonesian, Swedish
    r"(?:talimat|yonerge|komut|kural)[^ ]* ~(?:yok say|goz ardi|unut|dikkate alma|gormezden)",
    r"\b(?:abaikan|lupakan)\b ~(?:instruksi|perintah|petunjuk|aturan)|\b(?:ignorera|glom|bortse)\b ~instruktion",
    # Chinese, Japanese, Korean, Arabic, Hindi
    r"(?:忽略|无视|忘记|忽視|無視|忘掉|不要理会|不要遵守).{0,12}(?:指令|指示|说明|規則|规则|提示|要求|命令)",
    r"(?:指示|命令|指令|ルール|プロンプト).{0,8}(?:無視|忘れ)",
    r"(?:지시|명령|지침|규칙).{0,10}(?:무시|잊)",
    r"(?:تجاهل|انس|اهمل)[^ ]* ~[^ ]*(?:تعليمات|اوامر|توجيهات|قواعد|الارشادات)",
    r"(?:निर्देश|आदेश|नियम)[^ ]* ~(?:अनदेखा|नज़रअंदाज़|नजरअंदाज|भूल|ध्यान न)",
)
_FOREIGN_TAKE = (
    r"\b(?:antworte\w*|klassifizier\w*|kennzeichne\w*|markier\w*|wahle\w*|bewerte\w*|gib|label|antwoord|kies)\b ~#",
    r"\b(?:repond\w*|class\w+|etiquet\w+|choisi\w*|marqu\w+|respond\w*|clasific\w+|marc\w+|contest\w+|elig\w+|elij\w+|"
    r"respost\w*|escolh\w+|rispond\w+|classific\w+|scegli\w*|indique\w*|devuelv\w+|retorn\w+)\b ~#",
    r"(?:ответ|отвеч|классифиц|помет|отмет|выбер|метк|поста[вв]|відпов|odpowied|oznacz|sklasyfik|wybierz)[^ ]* ~#",
    r"# ~(?:olarak|yanit|cevap|etiketle|isaretle)|\b(?:jawab\w*|pilih|labeli|klasifikasi\w*|svara|markera|valj)\b ~#",
    r"(?:回答|回复|输出|标签|标记|分类|归类|选择|答案|答え|ラベル|分類|出力|라벨|레이블|분류|답)[^\n]{0,10}#",
    r"# ?(?:と|に|を|으로|로|라고|이라고|में|के रूप|ही)",
    r"(?:اجب|الاجابة|صنف|التصنيف|اختر|ضع|اكتب|التسمية|العلامة|الوسم)[^ ]* ~#",
    r"\b(?:label|etikett?\w*|etiquet\w*|categoria|categorie|kategorie\w*|kategoria|etykiet\w*|antwort|reponse|respuesta|"
    r"resposta|risposta|klasse)\b ~(?:ist|lautet|est|es|e|debe ser|doit etre|deve essere|deve ser|to|sein|moet|muss)?"
    r" ?#",
)


def _signs(kind: str, group: str, points: int, view: str, *patterns: str) -> list[Sign]:
    return [Sign(kind, group, points, view, pattern) for pattern in patterns]


SIGNS = (
    *_signs(
        *("command", "override", 2, "words"),
        rf"{_IGNORE} ~{_ORDERS}",
        rf"{_IGNORE} ~{_OLD} ~{_RULES}",
        rf"{_IGNORE} (?:all|the|everything|anything|whatever|what) ~(?:above|before|earlier|previously|so far|told)\b",
        rf"\b{_OLD} ~(?:{_ORDERS}|{_RULES}) ~(?:void|invalid|obsolete|cancell?ed|superseded|outdated|no longer|"
        r"replaced|suspended|not apply|null|ignored|disregarded)\b",
    ),
    *_signs(
        *("command", "boundary", 2, "words"),
        r"\b(?:new|updated|revised|additional|special|real|actual) ~?(?:instructions?|prompt|directive)\b",
        r"\bend of (?:the )?(?:text|data|input|item|document|prompt|user input|texts|items)\b",
    ),
    *_signs(
        *("command", "addressed", 2, "words"),
        rf"\b(?:dear|hey|hi|hello|attention|note to|message (?:to|for)|memo to|to|for|you are)"
        rf" (?:(?:the|any|all|our|automated|automatic|now|a|an) )*{_MODEL}\b",
        r"\b(?:if you are|as) (?:a|an) (?:ai|llm|language model|bot|model|machine|assistant|automated)\b",
        rf"\b{_MODEL} (?:reading|processing|labell?ing|must|should|has to|shall|will now)\b",
        r"\b(?:first|last|other|opposite|second|wrong) (?:label|class|category)\b",
    ),
    *_signs(
        *("command", "urge", 1, "words"),
        r"\b(?:from now on|you must|do not (?:read|analy|consider|think|evaluate)\w*|your (?:task|job|only|answer|"
        r"response|output|reply)|only (?:valid|acceptable|possible|permitted|allowed)|no matter|instead|simon says)\b",
    ),
    *_signs(
        *("command", "regardless", 2, "words"),
        r"\b(?:regardless of|no matter what|whatever|irrespective of|without reading|without looking at) ~"
        r"(?:content|texts?|meaning|wording|says|message|sentence|items?)\b",
    ),
    *_signs(
        *("command", "direct", 2, "named words"),
        rf"{_TAKE} ~#",
        r"\b(?:labell?ed|classified|marked|tagged|categori[sz]ed|annotated|adjudicated|coded) ~#",
    ),
    *_signs(
        *("command", "direct", 1, "named words"),
        r"\b(?:says?|write|use|put|give|call|consider|judge|flag|code|file|go|set|keep|make|decide|settle) ~#",
    ),
    # The next ones count only where a label is named, for in other texts these words mean nothing.
    *_signs(*("command", "named", 1, "named words"), "#"),
    *_signs(
        *("command", "trade", 1, "named words"),
        rf"\b(?:{_LABEL}e?s?|label\w+|classif\w+|categori\w+|annotat\w+|instruct\w+|guidelines?|prompts?|rules?|"
        r"data ?sets?|confiden\w+|certain(?:ty)?|uncertain\w*|definitions?|examples?|quote|schema|gold|truth|json|"
        r"format|tasks?|scores?|sure|doubts?|folder|rows?|training|test data)\b",
    ),
    *_signs(
        *("command", "must", 1, "named words"),
        r"\b(?:must|have to|has to|required|allowed|only|always|never|every|ignor\w+|disregard\w*|previous|above|before|"
        r"right|correct|final|please|trust me|no questions|until|skip)\b",
    ),
    *_signs(
        *("authority", "stated", 2, "named words"),
        rf"\b{_LABEL} ~(?:is|be|equals|as|to|was) ~#",
        rf"# (?:is|was) (?:the|its|their) (?:only |correct |right |true |final |gold )*{_LABEL}\b",
    ),
    *_signs(
        *("authority", "owner", 2, "words"),
        r"\b(?:data ?set|corpus|project|data) (?:owner|creator|maintainer|curator|lead|admin\w*)\b",
        r"\b(?:annotation|label?ling) (?:team|lead|manager|guidelines?|project|policy)\b",
        r"\b(?:gold|ground truth|reference|verified|adjudicated|correct|true|official) (?:label|annotation|class)\b",
        r"\bground truth\b|\bgold standard label|\b(?:human|expert|senior) (?:annotator|rater|labell?er)s?\b",
        r"\balready (?:been )?(?:labell?ed|classified|annotated|adjudicated)\b",
    ),
    *_signs(
        *("authority", "office", 1, "words"),
        r"\b(?:administrator|developers?|openai|anthropic|supervisor|compliance team|quality team|authori[sz]ed by|"
        r"on behalf of|adjudicat\w+|reviewers?|admin)\b",
    ),
    *_signs(
        *("authority", "role", 1, "words"),
        r"\b(?:pretend|act as|imagine (?:that )?you|play the role|let s play|role ?play|developer mode|jailbreak\w*|"
        r"hypothetical\w*|you are now|dan mode|debug mode|test mode|maintenance mode)\b",
    ),
    *_signs(
        *("confidence", "confidence", 2, "words"),
        r"\b(?:confidence|certainty|probability) ~(?:1 00?|100|0 9\d*|99|one)\b",
        r"\b(?:maximum|maximal|max|highest|total|absolute|complete|utmost|full) (?:confidence|certainty)\b",
        r"\b(?:100|hundred|99) ?(?:percent|per cent)? (?:sure|certain|confident|confidence|certainty)\b",
    ),
    *_signs(
        *("leak", "leak", 2, "words"),
        r"\bsystem prompt\b",
        r"\b(?:reveal|show|print|repeat|output|display|tell me|share|quote|copy|leak|disclose|recite|dump|expose|list) ~"
        r"(?:your (?:\w+ )?(?:prompt|instructions|guidelines)|instructions (?:above|verbatim|you)|api key|secret key|"
        r"(?:text|words|everything) above|hidden (?:prompt|instructions)|other (?:items|texts|messages)|label definitions)\b",
    ),
    *_signs(
        *("delimiter", "delimiter", 4, "shape"),
        r"<\s*item\s+id|</\s*(?:labels|guidelines|instructions|system|assistant|prompt|task|definitions)\s*>",
    ),
    *_signs(
        *("delimiter", "delimiter", 2, "shape"),
        r"</?\s*(?:items?|labels?|texts?|examples?|system|assistant|user|human|document|data|input|prompt|message)\s*/?>",
    ),
    *_signs(
        *("delimiter", "fence", 1, "shape"),
        r"[-=*\x23~_]{3,}|[\"`']{3}|<!--|/\*|\]:\s*\x23|(?:^|\n)\s*(?://|\x23|--)\s",
    ),
    *_signs(
        *("command", "hiding", 2, "shape"),
        r"display\s*:\s*none|font-size\s*:\s*0|color\s*:\s*(?:white|\x23fff)",
    ),
    *_signs(
        *("turn", "turn", 4, "shape"),
        r"<\|[a-z_]{2,30}\|?>|\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>|<\|(?:im_start|im_end)",
        r"\x23{2,}\s*(?:system|instruction|assistant|response|user|human|input)s?\b",
        r"""["']role["']\s*:\s*["'](?:system|assistant|user|developer)""",
    ),
    *_signs(*("turn", "turn", 2, "shape"), _SPEAKER),
    *_signs(
        *("answer", "answer", 4, "shape"),
        r"""["']labels?["']\s*:(?s:.*)["']confidence["']\s*:|["']confidence["']\s*:(?s:.*)["']labels?["']\s*:""",
    ),
    *_signs(*("answer", "answer", 2, "shape"), r"""["'](?:labels?|confidence|prediction|gold)["']\s*:"""),
    *_signs(
        *("answer", "answer", 4, "named shape"),
        rf"""["']\s*{_KEY}\s*["']\s*:\s*[\[{{"']*\s*#|<(?:{_KEY})[^>\n]{{0,80}}>\s*#|<{_KEY}\s*=\s*["']?#""",
    ),
    *_signs(*("answer", "answer", 3, "named shape"), rf"""\b{_KEY}\s*=\s*["']?#"""),
    *_signs(*("examples", "examples", 2, "named shape"), _PAIR),
    *_signs(
        *("examples", "examples", 4, "named shape"), rf"{_PAIR}(?s:.*){_PAIR}", rf"{_ARROW}(?s:.*){_ARROW}"
    ),
    *_signs(*("examples", "examples", 1, "named shape"), _ARROW),
    *_signs("language", "override", 2, "words", *_FOREIGN_IGNORE),
    *_signs("language", "direct", 2, "named words", *_FOREIGN_TAKE),
)

AROUND = ("named", "trade", "must")  # groups of signs around a label's name
IDENTIFIER = Sign("command", "identifier", 2, "named shape", "#")

# Where gaps split words, letters are looked at without gaps; it counts only if one of these words was split.
KEYWORDS = (
    *("ignore", "disregard", "forget", "instruction", "guideline", "previous", "answer", "label", "classif"),
    *("system", "confidence", "respond", "message", "prompt"),
)
SQUASHED = (
    r"(?:ignore|disregard|forget)(?:all|any|the|your|of)*(?:previous|prior|above|earlier|system|your)*(?:instruction|"
    r"rules|guideline|prompt)|(?:label|classify|answer)(?:this|it)(?:as|with|text|message|sentence|not)|"
    r"(?:gold|correct|true)labelis|confidence(?:is|of)?(?:10|100)|labelthis"
)
