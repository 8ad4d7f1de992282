"""Trust: where components come from that are granted what they ask without a question, and who has signed them."""
