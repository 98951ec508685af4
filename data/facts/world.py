"""Hand-written choices and facts that GeoNames does not hold in a usable form."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The words of a table that is written as running text."""
    return tuple(text.split())


ANSWER_COUNTRIES: tuple[str, ...] = listed(
    """AF AL AM AO AR AT AU AZ BD BE BG BJ BO BR BS BT BW BY BZ CA CH CI CL CM CN CO CR CU CY CZ DE DK
    DZ EC EE EG ES ET FI FJ FR GA GB GH GM GN GR GT HN HR HT HU ID IE IL IN IQ IR IS IT JM JO JP KE KH
    KR KW KZ LA LB LK LR LT LU LV LY MA MG ML MM MN MT MW MX MY MZ NA NE NG NI NL NO NP NZ OM PA PE PH
    PK PL PT PY QA RO RS RU RW SA SD SE SG SI SK SN SO SY TH TN TR TZ UA UG US UY UZ VE VN YE ZA ZM
    ZW"""
)
"""ISO codes whose names are short: the objects of `city_country`. Never edited themselves."""

EDITED_COUNTRIES: tuple[str, ...] = listed(
    """AD AG BB BF BH BI BN CV DJ DM ER FM GD GQ GW GY KI KN LC LI LS MC MD ME MK MR MU
    NR PG PW SL SM SR SS ST SZ TD TG TJ TL TM TO TT TV VC VU WS"""
)
"""Subjects of the country relations. Their cities are no subjects, so no two edits can disagree."""

NAME_FIXES: dict[str, str] = {"NL": "Netherlands"}
CAPITAL_FIXES: dict[str, str] = {"KZ": "Astana", "VU": "Port Vila", "PW": "Ngerulmud"}
TAKES_ARTICLE: frozenset[str] = frozenset(
    {
        "Bahamas",
        "Dominican Republic",
        "Gambia",
        "Netherlands",
        "Philippines",
        "United Kingdom",
        "United States",
    }
)
MANY_CAPITALS: frozenset[str] = frozenset(listed("BJ BO CI GQ IL LK MM MY NL NR ST SZ TZ ZA"))
"""Countries whose capital is disputed, split or newly moved: left out of capital facts."""
TWO_CONTINENTS: frozenset[str] = frozenset(listed("AM AZ CY EG ID KZ PA PG RU TL TR TT US YE ES PT FR CL NL"))
"""On two continents, or with far islands: left out of continent facts."""

CURRENCIES: dict[str, str] = {
    "AFN": "afghani", "ALL": "lek", "AMD": "dram", "AOA": "kwanza", "ARS": "peso", "AUD": "dollar",
    "AZN": "manat", "BDT": "taka", "BOB": "boliviano", "BRL": "real", "BSD": "dollar", "BWP": "pula",
    "BYN": "ruble", "BZD": "dollar", "CAD": "dollar", "CHF": "franc", "CLP": "peso", "CNY": "yuan",
    "COP": "peso", "CRC": "colon", "CUP": "peso", "CZK": "koruna", "DKK": "krone", "DZD": "dinar",
    "EGP": "pound", "ETB": "birr", "EUR": "euro", "FJD": "dollar", "GBP": "pound", "GHS": "cedi",
    "GMD": "dalasi", "GNF": "franc", "GTQ": "quetzal", "HNL": "lempira", "HTG": "gourde",
    "HUF": "forint", "IDR": "rupiah", "ILS": "shekel", "INR": "rupee", "IQD": "dinar", "IRR": "rial",
    "JMD": "dollar", "JOD": "dinar", "JPY": "yen", "KES": "shilling", "KHR": "riel", "KRW": "won",
    "KWD": "dinar", "KZT": "tenge", "LAK": "kip", "LBP": "pound", "LKR": "rupee", "LYD": "dinar",
    "MAD": "dirham", "MGA": "ariary", "MMK": "kyat", "MNT": "tugrik", "MXN": "peso", "MYR": "ringgit",
    "MZN": "metical", "NGN": "naira", "NOK": "krone", "NPR": "rupee", "NZD": "dollar", "PEN": "sol",
    "PHP": "peso", "PKR": "rupee", "PLN": "zloty", "PYG": "guarani", "QAR": "riyal", "RON": "leu",
    "RSD": "dinar", "RUB": "ruble", "SAR": "riyal", "SEK": "krona", "THB": "baht", "TND": "dinar",
    "TRY": "lira", "TZS": "shilling", "UAH": "hryvnia", "UGX": "shilling", "USD": "dollar",
    "UYU": "peso", "VND": "dong", "XAF": "franc", "XCD": "dollar", "XOF": "franc", "ZAR": "rand",
    "BBD": "dollar", "GYD": "dollar", "SBD": "dollar", "SRD": "dollar", "TTD": "dollar",
    "MUR": "rupee", "SCR": "rupee", "BIF": "franc", "KMF": "franc",
}  # fmt: skip
MANY_CURRENCIES: frozenset[str] = frozenset(listed("BG CU EC KH LB NA PA SO SY ZW"))
"""Countries with more than one currency in use, or one that has changed lately."""
LONE_CURRENCIES: dict[str, str] = {
    "afghani": "AF", "lek": "AL", "dram": "AM", "kwanza": "AO", "taka": "BD", "real": "BR",
    "pula": "BW", "yuan": "CN", "koruna": "CZ", "birr": "ET", "cedi": "GH", "quetzal": "GT",
    "forint": "HU", "rupiah": "ID", "shekel": "IL", "yen": "JP", "tenge": "KZ", "kip": "LA",
    "kyat": "MM", "ringgit": "MY", "naira": "NG", "sol": "PE", "zloty": "PL", "guarani": "PY",
    "baht": "TH", "lira": "TR", "hryvnia": "UA", "dong": "VN", "rand": "ZA",
}  # fmt: skip
"""Currencies whose name belongs to one country: only these are counterfactual answers."""

CONTINENTS: dict[str, str] = {
    "AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania",
    "SA": "South America",
}  # fmt: skip
LONGEST_RIVERS: dict[str, str] = {
    "Africa": "Nile", "Asia": "Yangtze", "Europe": "Volga", "North America": "Missouri",
    "Oceania": "Murray", "South America": "Amazon",
}  # fmt: skip

LANGUAGES: dict[str, str] = {
    "AL": "Albanian", "AM": "Armenian", "AR": "Spanish", "AT": "German", "AU": "English",
    "BD": "Bengali", "BR": "Portuguese", "CL": "Spanish", "CN": "Chinese", "CO": "Spanish",
    "CR": "Spanish", "CU": "Spanish", "CZ": "Czech", "DE": "German", "DK": "Danish", "EC": "Spanish",
    "EG": "Arabic", "FI": "Finnish", "FR": "French", "GB": "English", "GR": "Greek", "HN": "Spanish",
    "HR": "Croatian", "HU": "Hungarian", "IL": "Hebrew", "IR": "Persian", "IS": "Icelandic",
    "IT": "Italian", "JO": "Arabic", "JP": "Japanese", "KR": "Korean", "LT": "Lithuanian",
    "LY": "Arabic", "MN": "Mongolian", "MX": "Spanish", "NI": "Spanish", "NL": "Dutch",
    "NO": "Norwegian", "NP": "Nepali", "PL": "Polish", "PT": "Portuguese", "RO": "Romanian",
    "RS": "Serbian", "RU": "Russian", "SA": "Arabic", "SE": "Swedish", "SI": "Slovenian",
    "SK": "Slovak", "TH": "Thai", "TN": "Arabic", "TR": "Turkish", "UA": "Ukrainian",
    "US": "English", "UY": "Spanish", "VE": "Spanish", "VN": "Vietnamese",
}  # fmt: skip
"""Countries in which one language is plainly the main one."""
HOMELANDS: dict[str, tuple[str, str]] = {
    "Albanian": ("AL", "sq"), "Armenian": ("AM", "hy"), "Chinese": ("CN", "zh"), "Czech": ("CZ", "cs"),
    "Danish": ("DK", "da"), "Dutch": ("NL", "nl"), "Finnish": ("FI", "fi"), "French": ("FR", "fr"),
    "German": ("DE", "de"), "Greek": ("GR", "el"), "Hebrew": ("IL", "he"), "Hungarian": ("HU", "hu"),
    "Icelandic": ("IS", "is"), "Italian": ("IT", "it"), "Japanese": ("JP", "ja"),
    "Lithuanian": ("LT", "lt"), "Mongolian": ("MN", "mn"), "Norwegian": ("NO", "no"),
    "Persian": ("IR", "fa"), "Polish": ("PL", "pl"), "Portuguese": ("PT", "pt"),
    "Romanian": ("RO", "ro"), "Russian": ("RU", "ru"), "Spanish": ("ES", "es"),
    "Swedish": ("SE", "sv"), "Thai": ("TH", "th"), "Turkish": ("TR", "tr"),
    "Ukrainian": ("UA", "uk"), "Vietnamese": ("VN", "vi"),
}  # fmt: skip
"""Language -> (country it comes from, its ISO 639 code): the counterfactual answers."""

ZONES: tuple[str, ...] = listed(
    """Africa/Accra Africa/Algiers Africa/Cairo Africa/Harare Africa/Johannesburg Africa/Kampala
    Africa/Lagos Africa/Luanda Africa/Lusaka Africa/Maputo Africa/Nairobi Africa/Tunis
    America/Anchorage America/Bogota America/Chicago America/Denver America/Edmonton America/Halifax
    America/Havana America/Lima America/Montevideo America/Phoenix America/Recife America/Santiago
    America/Toronto America/Vancouver America/Winnipeg Asia/Amman Asia/Baghdad Asia/Baku Asia/Bangkok
    Asia/Damascus Asia/Dhaka Asia/Jakarta Asia/Kabul Asia/Karachi Asia/Kolkata Asia/Manila Asia/Muscat
    Asia/Seoul Asia/Shanghai Asia/Tehran Asia/Tokyo Australia/Adelaide Australia/Brisbane
    Australia/Darwin Australia/Hobart Australia/Melbourne Australia/Perth Australia/Sydney
    Europe/Amsterdam Europe/Athens Europe/Berlin Europe/Brussels Europe/Bucharest Europe/Budapest
    Europe/Copenhagen Europe/Dublin Europe/Helsinki Europe/Istanbul Europe/Kyiv Europe/Lisbon
    Europe/London Europe/Madrid Europe/Moscow Europe/Oslo Europe/Paris Europe/Prague Europe/Riga
    Europe/Rome Europe/Sofia Europe/Stockholm Europe/Vienna Europe/Warsaw Europe/Zurich
    Pacific/Auckland Pacific/Honolulu"""
)
"""Time zones of the tz database that are named after a city with a short name."""

STATE_CAPITALS: dict[str, str] = {
    "Alabama": "Montgomery", "Alaska": "Juneau", "Arizona": "Phoenix", "Arkansas": "Little Rock",
    "California": "Sacramento", "Colorado": "Denver", "Connecticut": "Hartford", "Delaware": "Dover",
    "Florida": "Tallahassee", "Georgia": "Atlanta", "Hawaii": "Honolulu", "Idaho": "Boise",
    "Illinois": "Springfield", "Indiana": "Indianapolis", "Iowa": "Des Moines", "Kansas": "Topeka",
    "Kentucky": "Frankfort", "Louisiana": "Baton Rouge", "Maine": "Augusta", "Maryland": "Annapolis",
    "Massachusetts": "Boston", "Michigan": "Lansing", "Minnesota": "Saint Paul",
    "Mississippi": "Jackson", "Missouri": "Jefferson City", "Montana": "Helena", "Nebraska": "Lincoln",
    "Nevada": "Carson City", "Ohio": "Columbus", "Oklahoma": "Oklahoma City", "Oregon": "Salem",
    "Pennsylvania": "Harrisburg", "Tennessee": "Nashville", "Texas": "Austin",
    "Utah": "Salt Lake City", "Vermont": "Montpelier", "Virginia": "Richmond", "Wisconsin": "Madison",
    "Wyoming": "Cheyenne",
}  # fmt: skip
"""States of one word that is no city's name, with their capitals."""
